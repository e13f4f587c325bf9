#pragma once
// Collectives over a group of ranks: over MPI for tensors in host memory, through NCCL for tensors
// on this process's GPU.
//
// Every rank of the group joins every collective in the same order, also ranks that have nothing to
// give. With one rank a collective returns at once and MPI is not touched. The _async forms return
// a Request; their tensors are theirs until it is done. One thread at a time may start collectives
// on a communicator.
//
// Sums are bit-identical from run to run and for every cut of the data: each element is x_0 + x_1 +
// … in rank order, so an all_reduce of a whole tensor, of its pieces, and a reduce_scatter give the
// same bits, on all ranks. MPI leaves that open
// ("strongly recommended" only, MPI 4.0 section 6.9.1; Open MPI chooses its algorithm, and with it
// the order, by message and group size), therefore sums are formed here: pieces are exchanged
// directly, summed by their owner and sent round, which moves 2 (p − 1) / p of the data per rank
// like a ring. Small ones are gathered and summed everywhere.
//
// On a GPU a collective starts after what the compute stream has so far, runs beside it on a stream
// of its own, and Request::wait makes the compute stream, not the host, wait for its end; all of
// this may be captured in a CUDA graph once the group has been used before. Groups of the same
// ranks share one NCCL communicator, so all ranks start their collectives on device memory in the
// same order even where these belong to different groups of the same ranks. NCCL adds in an order
// of its own, which depends on the group, the operation, its length and the place of an element in
// it: all ranks get the same bits, the same in every run, but not those of the CPU or of another
// cut. Where ranks share a GPU, UserError is thrown.
//
// Lengths are 64-bit. FULCRUM_REQUIRE errors name the collective and the shapes.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "framework/core/tensor.h"
#include "parallel/request.h"

namespace fulcrum::parallel {

struct Group;

enum class Reduce : std::uint8_t { sum, max };  // a NaN wins a max (in host memory)

// How ranks divide a tensor: in rank order, rank r has rows[r] rows of it.
struct RankRows {
  Tensor tensor;
  std::vector<std::int64_t> rows;
};

class Communicator {
 public:
  // Of one rank, without MPI.
  Communicator();
  // All ranks of the job. Needs a Session. Collective.
  static Communicator world();
  // Ranks that give the same color, ordered by key. Collective. The name appears in messages.
  Communicator split(int color, int key, const std::string& name) const;
  // The same ranks, whose collectives are ordered among themselves only. Collective.
  Communicator duplicate(const std::string& name) const;

  int rank() const;
  int size() const;
  bool alone() const { return size() == 1; }
  const std::string& name() const;

  void barrier() const;

  // In place; f32, f64, i64; on a GPU also bf16, i32, u8.
  void all_reduce(const Tensor& x, Reduce op = Reduce::sum) const {
    all_reduce_async(x, op).wait();
  }
  [[nodiscard]] Request all_reduce_async(const Tensor& x, Reduce op = Reduce::sum) const;
  // T: float, double, std::int64_t.
  template <class T>
  void all_reduce(std::span<T> x, Reduce op = Reduce::sum) const;

  // Scalars, for logs and common decisions.
  double sum(double value) const;
  std::int64_t sum(std::int64_t value) const;
  double max(double value) const;
  std::int64_t max(std::int64_t value) const;
  // True on all ranks when it is on any.
  bool any(bool flag) const;

  // Rows of x (leading dimension) are summed over the ranks, and rank r keeps its `rows[r]` rows of
  // the result, in rank order; Σ rows = x.dim(0). Returns [rows[rank], …]. dtypes of all_reduce.
  Tensor reduce_scatter(const Tensor& x, std::span<const std::int64_t> rows) const;
  // In place and of several tensors at once: each rank's rows become sums over the ranks, and its
  // other rows are left in pieces.
  [[nodiscard]] Request reduce_scatter_async(const std::vector<RankRows>& list) const;

  // Of root, to all. Any dtype.
  void broadcast(const Tensor& x, int root) const { broadcast_async(x, root).wait(); }
  [[nodiscard]] Request broadcast_async(const Tensor& x, int root) const;
  std::string broadcast(const std::string& text, int root) const;

  // Rows of all ranks one after another; rank r gives rows[r] rows. out: [Σ rows, …]. Any dtype.
  // out.slice of this rank's rows may be x itself.
  [[nodiscard]] Request all_gather_async(const Tensor& x, std::span<const std::int64_t> rows,
                                         const Tensor& out) const;
  Tensor all_gather(const Tensor& x, std::span<const std::int64_t> rows) const;
  // In place and of several tensors at once: each rank's rows go to all.
  [[nodiscard]] Request all_gather_async(const std::vector<RankRows>& list) const;
  // Every rank gives a tensor of the same shape [n, …]. Returns [size · n, …].
  Tensor all_gather(const Tensor& x) const;
  std::vector<std::int64_t> all_gather(std::int64_t value) const;

  // Rank r gets send_rows[r] rows of x, taken in rank order; receive_rows[r] rows come from rank r
  // into out, in rank order. Any dtype. x and out do not overlap.
  [[nodiscard]] Request all_to_all_async(const Tensor& x, std::span<const std::int64_t> send_rows,
                                         const Tensor& out,
                                         std::span<const std::int64_t> receive_rows) const;
  Tensor all_to_all(const Tensor& x, std::span<const std::int64_t> send_rows,
                    std::span<const std::int64_t> receive_rows) const;
  // One number for every rank; returns those that the ranks have for this one.
  std::vector<std::int64_t> all_to_all(std::span<const std::int64_t> values) const;

  const std::shared_ptr<Group>& group() const { return group_; }

 private:
  explicit Communicator(std::shared_ptr<Group> group) : group_(std::move(group)) {}
  std::shared_ptr<Group> group_;
};

}  // namespace fulcrum::parallel
