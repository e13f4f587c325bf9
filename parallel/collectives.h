#pragma once
// Internal: the collectives as operations over a group. Each takes the group's next tag at the
// call, posts its first messages and returns. `owner` keeps the memory at `data` alive; without one
// the caller does.

#include <cstdint>
#include <memory>
#include <vector>

#include "framework/core/tensor.h"
#include "parallel/communicator.h"
#include "parallel/operation.h"

namespace fulcrum::parallel {

// Throws ArgumentError unless tensors of its dtype are summed where it lies.
void require_summable(const char* op, const Tensor& x);

Request start_barrier(std::shared_ptr<Group> group);
Request start_broadcast(std::shared_ptr<Group> group, Tensor owner, void* data, std::int64_t bytes,
                        int root);
Request start_all_reduce(std::shared_ptr<Group> group, Tensor owner, void* data, std::int64_t count,
                         DType dtype, Reduce op);

// A tensor that the ranks divide: the whole of it, this rank's part, and how much each rank has.
// The part may be the whole's own memory.
struct RankParts {
  Tensor x;    // what is read: the whole to scatter, the part to gather
  Tensor out;  // what is written: the part, or the whole
  std::vector<std::int64_t> counts;
};
// Several at once. counts: elements.
Request start_reduce_scatter(std::shared_ptr<Group> group, std::vector<RankParts> list);
// counts: bytes. These two also serve a group of one.
Request start_all_gather(std::shared_ptr<Group> group, std::vector<RankParts> list);
Request start_all_to_all(std::shared_ptr<Group> group, Tensor x,
                         std::vector<std::int64_t> send_bytes, Tensor out,
                         std::vector<std::int64_t> receive_bytes);

// Stage of an all-to-all, for operations that consist of several.
void post_all_to_all(Operation& operation, const void* x,
                     const std::vector<std::int64_t>& send_bytes, void* out,
                     const std::vector<std::int64_t>& receive_bytes);

}  // namespace fulcrum::parallel
