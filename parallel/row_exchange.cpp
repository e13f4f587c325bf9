#include "parallel/row_exchange.h"

#include <chrono>
#include <cstring>
#include <numeric>

#include "framework/autograd/tape.h"
#include "framework/ops/table.h"
#include "parallel/collectives.h"
#include "parallel/mesh.h"
#include "parallel/progress_thread.h"

namespace fulcrum::parallel {

using Counts = std::vector<std::int64_t>;

struct RowRequest::State {
  Tensor unique;         // global ids that this rank needs; those of one owner lie together
  Counts needed;         // how many of each owner
  Counts wanted;         // how many each rank wants of this one
  Tensor wanted_ids;     // i64 [Σ wanted], global, rank after rank, on the host
  Tensor local_ids;      // the same within this rank's shard, on the GPU
  Tensor outgoing;       // [Σ wanted, width], the rows of those ids
  Tensor rows;           // [u, width]
  Tensor gradient_rows;  // [Σ wanted, width]
  int rows_tag = 0, gradient_tag = 0;
  Request ids_request, rows_request, gradient_request;
  bool rows_started = false;
  bool gradient_started = false;
};

namespace {

Counts times(Counts counts, std::int64_t factor) {
  for (std::int64_t& n : counts) n *= factor;
  return counts;
}

std::int64_t total(const Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

std::int64_t row_bytes(const Tensor& table) { return table.dim(1) * size_of(table.dtype()); }

// rows[i] = table[ids[i] - first]
void gather(const Tensor& table, std::int64_t first, const std::int64_t* ids, std::int64_t count,
            void* rows) {
  constexpr std::int64_t kAhead = 8;  // rows lie far apart: ask for them before they are needed
  const std::int64_t bytes = row_bytes(table);
  const char* source = static_cast<const char*>(table.raw());
  char* target = static_cast<char*>(rows);
  for (std::int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) __builtin_prefetch(source + (ids[i + kAhead] - first) * bytes);
    std::memcpy(target + i * bytes, source + (ids[i] - first) * bytes,
                static_cast<std::size_t>(bytes));
  }
}

// Starts a followed operation with a tag taken earlier.
Request launch(const std::shared_ptr<Group>& group, const char* name, std::int64_t bytes, int tag,
               std::vector<Operation::Stage> stages, const Request& previous = {}) {
  auto operation = std::make_shared<Operation>(group, name, bytes, tag, std::move(stages));
  if (previous.operation()) operation->after(previous.operation());
  if (operation->advance()) return {};
  Request request(std::move(operation));
  follow(request);
  return request;
}

}  // namespace

const Tensor& RowRequest::unique() const {
  static const Tensor undefined;
  return state_ ? state_->unique : undefined;
}

RowExchange::RowExchange(const Communicator& data, const Parameter& table)
    : table_(table), group_(data.duplicate(table.name + " rows")), upload_(table.value.device()) {
  FULCRUM_REQUIRE(table.global_shape.rank() == 2,
                  "row exchange: a table has two dimensions; {} is {}", table.name,
                  table.global_shape);
  const RowRange mine = shard(table.global_shape[0], data.size(), data.rank());
  FULCRUM_CHECK(table.shard.first == mine.first && table.shard.count == mine.count,
                "{}: this rank holds {} rows from {} on; of {} ranks it should hold {} from {} on",
                table.name, table.shard.count, table.shard.first, data.size(), mine.count,
                mine.first);
}

RowRequest RowExchange::begin(const Tensor& unique) {
  FULCRUM_REQUIRE(unique.rank() == 1 && unique.dtype() == DType::i64,
                  "row exchange: ids are i64 [u]; got {} {}", unique.dtype(), unique.shape());
  const std::int64_t all_rows = table_.global_shape[0];
  const std::int64_t* ids = unique.data<std::int64_t>();
  auto state = std::make_shared<State>();
  state->unique = unique.detach();
  state->needed.assign(static_cast<std::size_t>(group_.size()), 0);
  std::size_t owner = 0;
  RowRange range = shard(all_rows, group_.size(), 0);
  for (std::int64_t i = 0; i < unique.numel(); ++i) {
    FULCRUM_REQUIRE(0 <= ids[i] && ids[i] < all_rows && (i == 0 || ids[i - 1] < ids[i]),
                    "row exchange: ids ascend within the {} rows of {}; got {} at {}", all_rows,
                    table_.name, ids[i], i);
    while (ids[i] >= range.first + range.count) {
      range = shard(all_rows, group_.size(), static_cast<std::int64_t>(++owner));
    }
    ++state->needed[owner];
  }
  RowRequest request;
  request.state_ = state;
  if (group_.alone()) return request;

  const std::shared_ptr<Group>& group = group_.group();
  foreign_rows_ += unique.numel() - state->needed[static_cast<std::size_t>(group->rank)];
  const int ids_tag = group->take_tag();
  state->rows_tag = group->take_tag();
  state->gradient_tag = group->take_tag();
  state->wanted.assign(state->needed.size(), 0);
  const Counts one(state->needed.size(), sizeof(std::int64_t));
  const Operation::Stage counts = [=](Operation& operation) {
    post_all_to_all(operation, state->needed.data(), one, state->wanted.data(), one);
  };
  const Operation::Stage identifiers = [=](Operation& operation) {
    state->wanted_ids = Tensor::empty({total(state->wanted)}, DType::i64);
    post_all_to_all(operation, state->unique.raw(), times(state->needed, sizeof(std::int64_t)),
                    state->wanted_ids.raw(), times(state->wanted, sizeof(std::int64_t)));
  };
  state->ids_request =
      launch(group, "exchange of row ids", unique.bytes(), ids_tag, {counts, identifiers});
  return request;
}

void RowExchange::prefetch(RowRequest& request) {
  const std::shared_ptr<State>& state = request.state_;
  FULCRUM_CHECK(state != nullptr, "{}: rows of a request that was not begun", table_.name);
  if (group_.alone() || state->rows_started) return;
  state->rows_started = true;
  const Tensor table = table_.value.detach();
  state->rows = Tensor::empty({state->unique.numel(), table.dim(1)}, table.dtype(), table.device());
  if (on_gpu()) return send_rows_of_gpu(*state);
  const Operation::Stage rows = [state, table, first = table_.shard.first](Operation& operation) {
    state->outgoing = Tensor::empty({state->wanted_ids.numel(), table.dim(1)}, table.dtype());
    gather(table, first, state->wanted_ids.data<std::int64_t>(), state->wanted_ids.numel(),
           state->outgoing.raw());
    post_all_to_all(operation, state->outgoing.raw(), times(state->wanted, row_bytes(table)),
                    state->rows.raw(), times(state->needed, row_bytes(table)));
  };
  state->rows_request = launch(group_.group(), "exchange of rows", state->rows.bytes(),
                               state->rows_tag, {rows}, state->ids_request);
}

void RowExchange::send_rows_of_gpu(State& state) {
  wait(state.ids_request);
  state.local_ids = upload_(local_ids(state));
  const Tensor table = table_.value.detach();
  const Tensor outgoing =
      ops::read_table(table, state.local_ids.reshape({state.local_ids.numel(), 1}), table.dtype());
  state.rows_request = group_.all_to_all_async(outgoing, state.wanted, state.rows, state.needed);
}

// The wanted rows, counted within this rank's shard.
Tensor RowExchange::local_ids(const State& state) const {
  const Tensor local = state.wanted_ids.clone();
  for (std::int64_t i = 0; i < local.numel(); ++i)
    local.data<std::int64_t>()[i] -= table_.shard.first;
  return local;
}

void RowExchange::send_gradients(const std::shared_ptr<State>& state, const Tensor& gradient) {
  FULCRUM_CHECK(!state->gradient_started, "{}: gradients of the same rows twice", table_.name);
  state->gradient_started = true;
  const Tensor& table = table_.value;
  state->gradient_rows =
      Tensor::empty({total(state->wanted), table.dim(1)}, table.dtype(), table.device());
  if (on_gpu()) {
    state->gradient_request =
        group_.all_to_all_async(gradient, state->needed, state->gradient_rows, state->wanted);
    return;
  }
  const std::int64_t bytes = row_bytes(table);
  const Operation::Stage send = [state, gradient = gradient.detach(), bytes](Operation& operation) {
    post_all_to_all(operation, gradient.raw(), times(state->needed, bytes),
                    state->gradient_rows.raw(), times(state->wanted, bytes));
  };
  state->gradient_request = launch(group_.group(), "exchange of row gradients", gradient.bytes(),
                                   state->gradient_tag, {send});
}

void RowExchange::wait(Request& request) {
  const auto start = std::chrono::steady_clock::now();
  request.wait();
  exposed_seconds_ +=
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void RowExchange::finish() {
  SparseRows& sparse = table_.slot().sparse;
  for (const auto& state : recorded_) {
    // Nothing here used the rows, but their owners expect an answer.
    if (!state->gradient_started) send_gradients(state, Tensor::zeros_like(state->rows));
    wait(state->gradient_request);
    if (state->wanted_ids.numel() == 0) continue;
    sparse.rows.push_back(on_gpu() ? state->local_ids : local_ids(*state));
    sparse.values.push_back(state->gradient_rows);
  }
  recorded_.clear();
}

Tensor fetch_rows(RowExchange& exchange, RowRequest& request) {
  FULCRUM_CHECK(request.state_ != nullptr, "{}: rows of a request that was not begun",
                exchange.table_.name);
  const Tensor& table = exchange.table_.value;
  if (exchange.group_.alone()) return ops::gather_table(table, request.unique());
  exchange.prefetch(request);
  const auto state = request.state_;
  exchange.wait(state->rows_request);
  state->outgoing = {};
  Tensor rows = state->rows.detach();
  if (Tape* tape = Tape::recording({table})) {
    exchange.recorded_.push_back(state);
    tape->record("fetch_rows", {table}, {&rows},
                 [&exchange, state](Backward& b) { exchange.send_gradients(state, b.grad(0)); });
  }
  return rows;
}

Tensor fetch_rows(RowExchange& exchange, const Tensor& unique) {
  RowRequest request = exchange.begin(unique);
  return fetch_rows(exchange, request);
}

}  // namespace fulcrum::parallel
