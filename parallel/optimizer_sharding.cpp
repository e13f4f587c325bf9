#include "parallel/optimizer_sharding.h"

#include <algorithm>
#include <numeric>

#include "parallel/progress_thread.h"

namespace fulcrum::parallel {
namespace {

using Rows = std::vector<std::int64_t>;

bool is_divided(ParameterKind kind) {
  return kind == ParameterKind::matrix || kind == ParameterKind::expert ||
         kind == ParameterKind::embedding || kind == ParameterKind::head;
}

Rows even_rows(std::int64_t rows, int ranks) {
  Rows result;
  for (int r = 0; r < ranks; ++r) result.push_back(shard(rows, ranks, r).count);
  return result;
}

// Gives each matrix to the rank that has least to do so far.
class Owners {
 public:
  explicit Owners(int ranks) : work_(static_cast<std::size_t>(ranks), 0.0) {}

  Rows rows_of(const Shape& matrix) {
    const auto least = std::min_element(work_.begin(), work_.end());
    const std::int64_t smaller =
        std::min(matrix[0], matrix.numel() / std::max<std::int64_t>(matrix[0], 1));
    *least += static_cast<double>(matrix.numel()) * static_cast<double>(smaller);
    Rows rows(work_.size(), 0);
    rows[static_cast<std::size_t>(least - work_.begin())] = matrix[0];
    return rows;
  }

 private:
  std::vector<double> work_;
};

void cut_master(Parameter& parameter, const Rows& rows, int rank) {
  const std::int64_t first = std::accumulate(rows.begin(), rows.begin() + rank, std::int64_t{0});
  const std::int64_t count = rows[static_cast<std::size_t>(rank)];
  const Tensor part = parameter.master.detach().slice(first, first + count);
  parameter.master = parameter.rounded() ? part.clone() : part;
  parameter.master_rows = {first, count};
}

}  // namespace

OptimizerSharding::OptimizerSharding(const ParameterStore& store, const Mesh& mesh,
                                     const OptimizerShardingOptions& options)
    : dense_group_(mesh.data().duplicate("data (values)")),
      expert_group_(mesh.expert_data().duplicate("expert data (values)")) {
  if (!options.divide) return;
  Owners owners(dense_group_.size());
  for (const auto& parameter : store.parameters()) {
    const Communicator& group = mesh.gradient_group(parameter->kind);
    if (!is_divided(parameter->kind) || group.alone() || parameter->value.numel() == 0) continue;
    const bool whole = options.whole_matrices && parameter->kind == ParameterKind::matrix;
    const Rows rows = whole ? owners.rows_of(parameter->value.shape())
                            : even_rows(parameter->value.dim(0), group.size());
    cut_master(*parameter, rows, group.rank());
    rows_.emplace(parameter.get(), rows);
  }
}

const Rows* OptimizerSharding::rows(const Parameter& parameter) const {
  const auto it = rows_.find(&parameter);
  return it == rows_.end() ? nullptr : &it->second;
}

void OptimizerSharding::gather(const std::vector<Parameter*>& parameters) {
  std::vector<RankRows> dense;
  std::vector<RankRows> experts;
  for (const Parameter* parameter : parameters) {
    const Rows* divided = rows(*parameter);
    if (divided == nullptr) continue;
    auto& list = parameter->kind == ParameterKind::expert ? experts : dense;
    list.push_back({parameter->value.detach(), *divided});
  }
  requests_.push_back(dense_group_.all_gather_async(dense));
  follow(requests_.back());
  requests_.push_back(expert_group_.all_gather_async(experts));
  follow(requests_.back());
}

void OptimizerSharding::finish() {
  for (Request& request : requests_) request.wait();
  requests_.clear();
}

}  // namespace fulcrum::parallel
