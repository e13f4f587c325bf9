#pragma once
// The short convolution of a DSE memory (arXiv 2601.07372 eq. 5): depthwise, causal, dilated,
// without bias.

#include <cstdint>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

// y[b, t, c] = Σ_j weight[c, j] · x[b, t − (kernel − 1 − j)·dilation, c]
// x [batch, seq, d], weight [d, kernel]; the last tap is the present position, as in the published
// code. Positions before the start of the sequence, or of the document when document_start i32
// [batch, seq] is given (framework/ops/document.h), are zero. Differentiable in x and weight.
Tensor causal_convolution(const Tensor& x, const Tensor& weight, std::int64_t dilation,
                          const Tensor& document_start = {});

// y = SiLU(causal_convolution(RMSNorm(x))) + x in one pass, with RMSNorm(x) = norm_weight ⊙ x /
// √(mean(x²) + eps) over the last dimension. With weight zero, as at the start of training, y = x.
// Differentiable in x, norm_weight [d] and weight. square_means [batch · seq], when given, holds
// mean(x²) of every row, which whoever made x may know (dse_gate.h).
Tensor short_convolution(const Tensor& x, const Tensor& norm_weight, const Tensor& weight,
                         std::int64_t dilation, double eps, const Tensor& document_start = {},
                         const Tensor& square_means = {});

}  // namespace fulcrum::ops
