#include "models/load_statistics.h"

#include "framework/ops/expert_load.h"

namespace fulcrum::models {

void LoadStatistics::clear() {
  total_ = {};
  tokens_ = 0;
}

LoadCounts LoadStatistics::add(const Tensor& experts, const Tensor& groups,
                               const ForwardPass& pass) {
  if (pass.first_run && pass.first_run->done) return pass.first_run->load;
  const std::int64_t count = experts.numel();
  const std::int64_t all = count + (groups.defined() ? groups.numel() : 0);
  const Tensor both = Tensor::empty({all}, DType::i64, experts.device());
  both.slice(0, count).copy_from(experts);
  if (groups.defined()) both.slice(count, all).copy_from(groups);
  if (pass.data_ranks != nullptr) pass.data_ranks->all_reduce(both);

  if (total_.defined()) ops::accumulate_counts(both, total_);
  total_ = both;
  tokens_ += pass.global_tokens;
  const LoadCounts load{total_.slice(0, count),
                        groups.defined() ? total_.slice(count, all) : Tensor(),
                        static_cast<double>(pass.global_tokens) / static_cast<double>(tokens_)};
  if (pass.first_run) pass.first_run->load = load;
  return load;
}

}  // namespace fulcrum::models
