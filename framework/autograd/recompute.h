#pragma once
// Activation recompute: memory for work. What backward needs is not kept but computed again, with
// the same bits, since operators are deterministic. Outside a recording tape nothing is kept
// anyway.

#include <functional>
#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum {

enum class Recompute {
  none,
  selective,  // what is cheap: outputs of norms, activations and permutations
  full,       // whole blocks: only their inputs are kept
};

// Runs segment without recording and keeps only its inputs; backward runs it again. The segment
// must be a pure function of its inputs and of parameters. Inputs may be undefined.
std::vector<Tensor> recompute(
    std::function<std::vector<Tensor>(const std::vector<Tensor>&)> segment,
    const std::vector<Tensor>& inputs);

// Gives back the memory of value until backward comes to this point of the tape; then again() makes
// it anew. Call it behind the last operator that uses value in forward: the handles that operators
// kept for backward see the memory go and come back. value must be a whole tensor; again must give
// the same dtype and shape.
void drop_until_backward(const Tensor& value, std::function<Tensor()> again);

}  // namespace fulcrum
