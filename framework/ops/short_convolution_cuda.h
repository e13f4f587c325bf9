#pragma once
// What short_convolution*.cu launch. Internal to
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
  // On CUDA where whoever made x knows mean(x²): kernels form the scales from it, which saves the
  // launch that would write them.
  Tensor square_means = {};
  double eps = 0.0;

  bool fused() const { return norm_weight.defined(); }
};

namespace cuda {

// scales [n] = 1 / √(mean(x²) + eps) of the rows of x.
void row_scales(const Tensor& x, double eps, const Tensor& scales);

// Reads x once but for the reach of a strip's first positions, and writes y once.
void convolution(const ConvolutionInputs& in, const Tensor& y);

// dx (+)= the gradient of x; dx may be undefined. Returns in parts [parts, kernel, d]
// Σ_p dz(p) ⊙ x(p − reach_j) · scale. With four taps and rows whose state fits a multiprocessor it
// reads x and the gradient once and writes dx once.
Tensor convolution_backward(const ConvolutionInputs& in, const Tensor& gradient, const Tensor& dx,
                            bool add);

// Gradients of weight and norm_weight from those parts; a target without a tensor is not wanted.
void convolution_weights(const ConvolutionInputs& in, const Tensor& parts,
                         const GradSlot::Target& d_weight, const GradSlot::Target& d_norm);

}  // namespace cuda
}  // namespace fulcrum::ops
