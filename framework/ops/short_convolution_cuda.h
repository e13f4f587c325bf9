#pragma once
// What short_convolution.cu and short_convolution_backward.cu launch. Internal to
// ops/short_convolution.h, which has the formulas.

#include "framework/autograd/grad_slot.h"

namespace fulcrum::ops {

// Inputs as the tape holds them, without their gradients.
struct ConvolutionInputs {
  Tensor x;            // [batch, seq, d]
  Tensor norm_weight;  // [d]; undefined: the plain convolution
  Tensor weight;       // [d, kernel]
  Tensor start;        // i32 [batch, seq]; undefined: no documents
  Tensor scales;       // [batch · seq]: 1 / √(mean(x²) + eps); undefined without the norm
  std::int64_t dilation;

  bool fused() const { return norm_weight.defined(); }
};

namespace cuda {

// scales [n] = 1 / √(mean(x²) + eps) of the rows of x; square_means, when defined, holds mean(x²).
void row_scales(const Tensor& x, const Tensor& square_means, double eps, const Tensor& scales);

// Reads x once but for the reach of a block's first positions, and writes y once.
void convolution(const ConvolutionInputs& in, const Tensor& y);

// dx (+)= the gradient of x; dx may be undefined. Returns totals [kernel, d]:
// Σ_p dz(p) ⊙ x(p − reach_j) · scale. With four taps and rows that fit a multiprocessor's shared
// memory it reads x and the gradient once and writes dx once.
Tensor convolution_backward(const ConvolutionInputs& in, const Tensor& gradient, const Tensor& dx,
                            bool add);

// Gradients of weight and norm_weight from those totals; a target without a tensor is not wanted.
void convolution_weights(const ConvolutionInputs& in, const Tensor& totals,
                         const GradSlot::Target& d_weight, const GradSlot::Target& d_norm);

}  // namespace cuda
}  // namespace fulcrum::ops
