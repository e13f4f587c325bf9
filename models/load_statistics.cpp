#include "models/load_statistics.h"

namespace fulcrum::models {

void LoadStatistics::clear() {
  total_ = {};
  tokens_ = 0;
}

LoadStatistics::Counts LoadStatistics::add(const Tensor& experts, const Tensor& groups,
                                           const ForwardPass& pass) {
  const std::int64_t count = experts.numel();
  const Tensor both = Tensor::empty({count + groups.numel()}, DType::f64);
  double* p = both.data<double>();
  for (std::int64_t i = 0; i < count; ++i)
    p[i] = static_cast<double>(experts.data<std::int64_t>()[i]);
  for (std::int64_t i = 0; i < groups.numel(); ++i) {
    p[count + i] = static_cast<double>(groups.data<std::int64_t>()[i]);
  }
  if (pass.data_ranks != nullptr) pass.data_ranks->all_reduce(both);

  if (!total_.defined()) total_ = Tensor::zeros_like(both);
  tokens_ += pass.global_tokens;
  const double scale = static_cast<double>(pass.global_tokens) / static_cast<double>(tokens_);
  const Tensor scaled = Tensor::empty_like(both);
  for (std::int64_t i = 0; i < both.numel(); ++i) {
    total_.data<double>()[i] += p[i];
    scaled.data<double>()[i] = scale * total_.data<double>()[i];
  }
  return {scaled.slice(0, count), scaled.slice(count, both.numel())};
}

}  // namespace fulcrum::models
