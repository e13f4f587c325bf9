#include "framework/ops/expert_load.h"

#include <numeric>

#include "framework/ops/expert_load_cuda.h"

namespace fulcrum::ops {

void accumulate_counts(const Tensor& total, const Tensor& counts) {
  FULCRUM_REQUIRE(total.dtype() == DType::i64 && counts.dtype() == DType::i64 &&
                      total.shape() == counts.shape() && total.device() == counts.device(),
                  "accumulate_counts: i64 of one shape on one device; got {} {} on {} and {} {} on "
                  "{}",
                  total.dtype(), total.shape(), total.device(), counts.dtype(), counts.shape(),
                  counts.device());
  if constexpr (kBuiltWithCuda) {
    if (total.device().is_cuda()) return cuda::accumulate_counts(total, counts);
  }
  std::int64_t* sum = total.data<std::int64_t>();
  const std::int64_t* count = counts.data<std::int64_t>();
  for (std::int64_t i = 0; i < total.numel(); ++i) sum[i] += count[i];
}

void follow_load(const Tensor& bias, const Tensor& load, double rate) {
  const std::int64_t experts = bias.numel();
  FULCRUM_REQUIRE(bias.dtype() == DType::f32 && load.dtype() == DType::i64 &&
                      load.numel() == experts && load.device() == bias.device(),
                  "follow_load: bias f32 and load i64 of the same experts on one device; got {} {} "
                  "on {} and {} {} on {}",
                  bias.dtype(), bias.shape(), bias.device(), load.dtype(), load.shape(),
                  load.device());
  const auto step = static_cast<float>(rate);
  if constexpr (kBuiltWithCuda) {
    if (bias.device().is_cuda()) return cuda::follow_load(bias, load, step);
  }
  float* b = bias.data<float>();
  const std::int64_t* of_expert = load.data<std::int64_t>();
  const std::int64_t total = std::accumulate(of_expert, of_expert + experts, std::int64_t{0});
  for (std::int64_t i = 0; i < experts; ++i) {
    // load against the mean, without rounding: load · experts against the total
    const std::int64_t excess = of_expert[i] * experts - total;
    if (excess != 0) b[i] += excess < 0 ? step : -step;
  }
}

}  // namespace fulcrum::ops
