#include "apps/train/evaluator.h"

#include <algorithm>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/ops/scalars.h"

namespace fulcrum::apps {

Evaluation evaluate(models::LanguageModel& model, const data::Windows& windows, std::int64_t count,
                    std::int64_t micro_batch, const parallel::Mesh& mesh) {
  const Tape::Pause no_recording;
  const std::int64_t total = count == 0 ? windows.count() : std::min(count, windows.count());
  const std::int64_t ranks = mesh.data().size();
  const std::int64_t rank = mesh.data().rank();
  const Device device = model.device();
  std::vector<Tensor> nll;  // of each batch, read together at the end
  std::int64_t tokens = 0;
  for (std::int64_t first = 0; first < total; first += ranks * micro_batch) {
    // Beyond the last window a rank computes it again without counting it, so that all ranks stay
    // in step.
    std::vector<std::int64_t> indices;
    for (std::int64_t i = 0; i < micro_batch; ++i) {
      indices.push_back(std::min(first + rank * micro_batch + i, total - 1));
    }
    const data::Batch batch = windows.load(indices);
    std::int32_t* targets = batch.targets.data<std::int32_t>();
    const std::int64_t length = batch.length();
    for (std::int64_t i = 0; i < micro_batch; ++i) {
      const bool counted = first + rank * micro_batch + i < total;
      for (std::int64_t t = i * length; t < (i + 1) * length; ++t) {
        if (!counted) targets[t] = -1;
        if (targets[t] >= 0) ++tokens;
      }
    }
    const data::Batch there = batch.to(device);
    models::ForwardPass pass{there};
    pass.host_batch = &batch;
    pass.training = false;
    pass.data_ranks = &mesh.data();
    pass.global_tokens = ranks * batch.ids.numel();
    nll.push_back(model.loss(pass).nll_sum);
  }
  double sums[] = {0.0, static_cast<double>(tokens)};
  const Tensor values = ops::pack_scalars(nll).to(Device{});
  for (std::int64_t i = 0; i < values.numel(); ++i) sums[0] += values.data<double>()[i];
  mesh.data().all_reduce(std::span<double>(sums));
  return {sums[1] > 0 ? sums[0] / sums[1] : 0.0, static_cast<std::int64_t>(sums[1])};
}

}  // namespace fulcrum::apps
