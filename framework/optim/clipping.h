#pragma once
// Clipping by the global norm over every kind of gradient.
//
//   Tensor sum = gradient_square_sum(parameters, device);     // on each rank, of its own share
//   double scale = clip_factor(sum over ranks, clip_norm);
//
// The scale is the same on all ranks; Optimizer::step takes it.

#include <cstdint>
#include <vector>

#include "framework/nn/parameter.h"

namespace fulcrum {

// Σ x² in double: squares of fixed blocks of elements, added in order, so that the number of
// threads does not matter.
double square_sum(const Tensor& x);

// Σ g² of the gradients of these parameters, which live on `device`: f64 [1] there. Of dense
// gradients the rows that this rank's masters hold count; those that are `fresh` count as zero, as
// in Optimizer::step; sparse ones are first merged in place. On CUDA nothing waits for the device,
// and sums over fixed blocks of elements are added in order.
Tensor gradient_square_sum(const std::vector<Parameter*>& parameters, Device device);

// min(1, max_norm / √square_sum); 1 when max_norm is 0. NaN when the sum is not finite: such a step
// must be skipped.
double clip_factor(double square_sum, double max_norm);

}  // namespace fulcrum
