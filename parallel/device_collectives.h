#pragma once
// Internal: the collectives on device memory, through NCCL. Callers are discarded in builds without
// CUDA (kBuiltWithCuda), so that no stand-in exists. Groups have several ranks.

#include <cstdint>
#include <memory>
#include <vector>

#include "parallel/collectives.h"

namespace fulcrum::parallel {

// A collective where the tensor lies: one of two functions that start it.
template <class Host, class Gpu>
Request start_where(const Tensor& x, Host&& host, [[maybe_unused]] Gpu&& gpu) {
  if constexpr (kBuiltWithCuda) {
    if (x.device().is_cuda()) return gpu();
  }
  return host();
}

namespace cuda {

Request broadcast(const std::shared_ptr<Group>& group, const Tensor& x, int root);
Request all_reduce(const std::shared_ptr<Group>& group, const Tensor& x, Reduce op);
Request reduce_scatter(const std::shared_ptr<Group>& group, const std::vector<RankParts>& list);
Request all_gather(const std::shared_ptr<Group>& group, const std::vector<RankParts>& list);
Request all_to_all(const std::shared_ptr<Group>& group, const Tensor& x,
                   const std::vector<std::int64_t>& send_bytes, const Tensor& out,
                   const std::vector<std::int64_t>& receive_bytes);

// At the end of the session: destroys the NCCL communicators. Collective.
void destroy_all();
// When the job ends in an emergency: ends what is under way on the device, within two seconds.
void abort_all() noexcept;

}  // namespace cuda
}  // namespace fulcrum::parallel
