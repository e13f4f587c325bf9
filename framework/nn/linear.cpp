#include "framework/nn/linear.h"

#include <numeric>

#include "framework/ops/matmul.h"
#include "framework/ops/norm.h"

namespace fulcrum {

Linear::Linear(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out,
               double std, ParameterKind kind)
    : weight_(&store.create(name + ".weight", kind, {out, in}, Initializer::normal(std))) {}

Linear::Linear(ParameterStore& store, const std::string& name, std::int64_t in,
               const std::vector<std::int64_t>& outs, double std)
    : weight_(&store.create(name + ".weight", ParameterKind::matrix,
                            {std::accumulate(outs.begin(), outs.end(), std::int64_t{0}), in},
                            Initializer::normal(std), outs)) {}

Tensor Linear::operator()(const Tensor& x) const { return ops::linear(x, weight_->value); }

RmsNorm::RmsNorm(ParameterStore& store, const std::string& name, std::int64_t width, double eps)
    : weight_(&store.create(name + ".weight", ParameterKind::vector, {width}, Initializer::ones())),
      eps_(eps) {}

Tensor RmsNorm::operator()(const Tensor& x) const { return ops::rms_norm(x, weight_->value, eps_); }

}  // namespace fulcrum
