#pragma once
// Clipping by the global norm over every kind of gradient.
//
//   double sum = gradient_square_sum(replicated) + all_reduce(gradient_square_sum(sharded));
//   double scale = clip_factor(sum, clip_norm);
//
// The scale is the same on all ranks; Optimizer::step takes it.

#include <cstdint>
#include <vector>

#include "framework/nn/parameter.h"

namespace fulcrum {

// Σ x² in double: squares of fixed blocks of elements, added in order, so that the number of
// threads does not matter.
double square_sum(const Tensor& x);

// Σ g² of the gradients held here. Dense gradients that are `fresh` count as zero, as in
// Optimizer::step; sparse ones are first merged in place.
double gradient_square_sum(const Parameter& parameter);
double gradient_square_sum(const std::vector<Parameter*>& parameters);

// min(1, max_norm / √square_sum); 1 when max_norm is 0. NaN when the sum is not finite: such a step
// must be skipped.
double clip_factor(double square_sum, double max_norm);

}  // namespace fulcrum
