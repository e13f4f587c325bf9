#pragma once
// Layers that own one weight.

#include <vector>

#include "framework/core/tensor.h"
#include "framework/nn/parameter.h"

namespace fulcrum {

// y = x · Wᵀ, W [out, in]; no bias.
class Linear {
 public:
  Linear(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out,
         double std, ParameterKind kind = ParameterKind::matrix);
  // Several matrices that read the same x, one below the other: y holds their outputs side by side.
  Linear(ParameterStore& store, const std::string& name, std::int64_t in,
         const std::vector<std::int64_t>& outs, double std);
  Tensor operator()(const Tensor& x) const;  // [..., in] → [..., out]
  const Parameter& weight() const { return *weight_; }

 private:
  Parameter* weight_;
};

// y = x / sqrt(mean(x²) + eps) · w over the last dimension (Zhang and Sennrich 2019).
class RmsNorm {
 public:
  RmsNorm(ParameterStore& store, const std::string& name, std::int64_t width, double eps);
  Tensor operator()(const Tensor& x) const;
  const Tensor& weight() const { return weight_->value; }
  double eps() const { return eps_; }

 private:
  Parameter* weight_;
  double eps_;
};

}  // namespace fulcrum
