#pragma once
// Rows of a table that is sharded over ranks: fetched before use, their gradients sent back.
//
// Which rows a batch needs depends on token ids only, so their ids travel before the forward pass,
// the rows while earlier layers compute, and the gradients while backward computes the rest:
//
//   RowRequest request = exchange.begin(unique);  // when the batch is known, even before the last
//                                                 // optimizer step
//   exchange.prefetch(request);                   // when the table is up to date
//   … earlier layers …
//   Tensor rows = fetch_rows(exchange, request);  // [u, width], differentiable
//   … backward …
//   exchange.finish();                            // before the optimizer
//
// All ranks of the group make the same calls in the same order, also those that need no row. The
// row gradients reach the owners' GradSlot::sparse in finish: local row ids (global − shard.first),
// request after request, and within a request rank after rank, so their order, and with it every
// sum over them, is the same in every run. A row that several ranks used appears once for each.
//
// A table on a GPU, f32: ids still travel between the hosts, which know them; rows and gradients go
// from GPU to GPU, and only the GPU waits for them. prefetch waits until the ids have arrived. As
// shapes differ from batch to batch, this cannot be captured in a CUDA graph. Every rank must use
// the rows that it fetches (parallel/communicator.h: the same order on all ranks).
//
// With one rank the rows are read in place, gradients are in the slot after backward, and nothing
// else happens.

#include <cstdint>
#include <memory>
#include <vector>

#include "framework/core/upload_queue.h"
#include "framework/nn/parameter.h"
#include "parallel/communicator.h"

namespace fulcrum::parallel {

class RowExchange;

// Rows that a batch needs.
class RowRequest {
 public:
  RowRequest() = default;
  // Global row ids, i64 [u], ascending, on the host.
  const Tensor& unique() const;

 private:
  friend class RowExchange;
  friend Tensor fetch_rows(RowExchange& exchange, RowRequest& request);
  struct State;
  std::shared_ptr<State> state_;
};

class RowExchange {
 public:
  // The table's rows must be divided over the group as Mesh::shard_policy does; the table must
  // outlive this. Collective.
  RowExchange(const Communicator& data, const Parameter& table);

  // Sends the ids to the owners of the rows. unique: i64 [u] on the host, strictly ascending, each
  // in [0, rows), else ArgumentError.
  RowRequest begin(const Tensor& unique);
  // From now on the owners may read their shards and send the rows; the table must not change until
  // fetch_rows has returned.
  void prefetch(RowRequest& request);
  // Waits for the row gradients of every recorded fetch since the last finish and appends them to
  // the table's slot.
  void finish();

  const Parameter& table() const { return table_; }
  // Totals so far: rows asked of other ranks, and time spent waiting for rows and gradients.
  std::int64_t foreign_rows() const { return foreign_rows_; }
  double exposed_seconds() const { return exposed_seconds_; }

 private:
  friend Tensor fetch_rows(RowExchange& exchange, RowRequest& request);
  using State = RowRequest::State;
  bool on_gpu() const { return table_.value.device().is_cuda(); }
  void send_rows_of_gpu(State& state);
  Tensor local_ids(const State& state) const;
  void send_gradients(const std::shared_ptr<State>& state, const Tensor& gradient);
  void wait(Request& request);

  const Parameter& table_;
  Communicator group_;
  UploadQueue upload_;
  std::vector<std::shared_ptr<State>> recorded_;  // their gradients come back
  std::int64_t foreign_rows_ = 0;
  double exposed_seconds_ = 0.0;
};

// The rows of a request, [u, width] in the order of its ids. Prefetches if that was not done.
// Backward sends the gradient to the owners; a request can be differentiated once.
Tensor fetch_rows(RowExchange& exchange, RowRequest& request);
// All at once, when there is nothing to overlap with.
Tensor fetch_rows(RowExchange& exchange, const Tensor& unique);

}  // namespace fulcrum::parallel
