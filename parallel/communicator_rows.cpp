#include <numeric>

#include "parallel/collectives.h"
#include "parallel/communicator.h"
#include "parallel/device_collectives.h"

namespace fulcrum::parallel {
namespace {

std::int64_t total(std::span<const std::int64_t> rows) {
  return std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
}

// Bytes of one row of the leading dimension.
std::int64_t row_bytes(const Tensor& x) {
  std::int64_t bytes = size_of(x.dtype());
  for (int i = 1; i < x.rank(); ++i) bytes *= x.dim(i);
  return bytes;
}

Shape with_rows(const Tensor& x, std::int64_t rows) {
  Shape shape = x.shape();
  shape[0] = rows;
  return shape;
}

void require_rows(const char* op, const Communicator& comm, const Tensor& x, std::int64_t rows,
                  std::span<const std::int64_t> counts) {
  FULCRUM_REQUIRE(x.rank() >= 1, "{}: at least one dimension; got {}", op, x.shape());
  FULCRUM_REQUIRE(static_cast<int>(counts.size()) == comm.size(),
                  "{}: one count for each of {} ranks; got {}", op, comm.size(), counts.size());
  FULCRUM_REQUIRE(x.dim(0) == rows, "{}: the counts sum to {} rows; got {}", op, rows, x.shape());
}

void require_pair(const char* op, const Tensor& x, const Tensor& out) {
  FULCRUM_REQUIRE(
      x.dtype() == out.dtype() && x.device() == out.device() && row_bytes(x) == row_bytes(out),
      "{}: rows of {} {} on {} into {} {} on {}", op, x.dtype(), x.shape(), x.device(), out.dtype(),
      out.shape(), out.device());
}

// This rank's rows of a tensor that the ranks divide.
Tensor own_rows(const Tensor& x, std::span<const std::int64_t> rows, int rank) {
  const std::int64_t first = total(rows.first(static_cast<std::size_t>(rank)));
  return x.slice(first, first + rows[static_cast<std::size_t>(rank)]);
}

std::vector<std::int64_t> times(std::span<const std::int64_t> rows, std::int64_t factor) {
  std::vector<std::int64_t> result(rows.begin(), rows.end());
  for (std::int64_t& n : result) n *= factor;
  return result;
}

}  // namespace

Tensor Communicator::reduce_scatter(const Tensor& x, std::span<const std::int64_t> rows) const {
  require_rows("reduce_scatter", *this, x, total(rows), rows);
  require_summable("reduce_scatter", x);
  if (alone()) return x.clone();
  const Tensor out = Tensor::empty(with_rows(x, rows[rank()]), x.dtype(), x.device());
  const std::vector<RankParts> list = {
      {x.detach(), out, times(rows, row_bytes(x) / size_of(x.dtype()))}};
  start_where(
      x, [&] { return start_reduce_scatter(group_, list); },
      [&] { return cuda::reduce_scatter(group_, list); })
      .wait();
  return out;
}

Request Communicator::reduce_scatter_async(const std::vector<RankRows>& list) const {
  if (alone() || list.empty()) return {};
  std::vector<RankParts> parts;
  for (const auto& [x, rows] : list) {
    require_rows("reduce_scatter", *this, x, total(rows), rows);
    require_summable("reduce_scatter", x);
    parts.push_back(
        {x.detach(), own_rows(x, rows, rank()), times(rows, row_bytes(x) / size_of(x.dtype()))});
  }
  return start_where(
      list[0].tensor, [&] { return start_reduce_scatter(group_, parts); },
      [&] { return cuda::reduce_scatter(group_, parts); });
}

Request Communicator::all_gather_async(const Tensor& x, std::span<const std::int64_t> rows,
                                       const Tensor& out) const {
  require_rows("all_gather", *this, out, total(rows), rows);
  require_rows("all_gather", *this, x, rows[rank()], rows);
  require_pair("all_gather", x, out);
  if (alone()) {
    if (x.raw() != out.raw()) out.copy_from(x);
    return {};
  }
  const std::vector<RankParts> list = {{x.detach(), out.detach(), times(rows, row_bytes(out))}};
  return start_where(
      out, [&] { return start_all_gather(group_, list); },
      [&] { return cuda::all_gather(group_, list); });
}

Request Communicator::all_gather_async(const std::vector<RankRows>& list) const {
  if (alone() || list.empty()) return {};
  std::vector<RankParts> parts;
  for (const auto& [x, rows] : list) {
    require_rows("all_gather", *this, x, total(rows), rows);
    parts.push_back({own_rows(x, rows, rank()), x.detach(), times(rows, row_bytes(x))});
  }
  return start_where(
      list[0].tensor, [&] { return start_all_gather(group_, parts); },
      [&] { return cuda::all_gather(group_, parts); });
}

Tensor Communicator::all_gather(const Tensor& x, std::span<const std::int64_t> rows) const {
  FULCRUM_REQUIRE(x.rank() >= 1, "all_gather: at least one dimension; got {}", x.shape());
  const Tensor out = Tensor::empty(with_rows(x, total(rows)), x.dtype(), x.device());
  all_gather_async(x, rows, out).wait();
  return out;
}

Tensor Communicator::all_gather(const Tensor& x) const {
  FULCRUM_REQUIRE(x.rank() >= 1, "all_gather: at least one dimension; got {}", x.shape());
  return all_gather(x, std::vector<std::int64_t>(static_cast<std::size_t>(size()), x.dim(0)));
}

std::vector<std::int64_t> Communicator::all_gather(std::int64_t value) const {
  return all_gather(Tensor::from(std::vector<std::int64_t>{value}, {1})).to_vector<std::int64_t>();
}

Request Communicator::all_to_all_async(const Tensor& x, std::span<const std::int64_t> send_rows,
                                       const Tensor& out,
                                       std::span<const std::int64_t> receive_rows) const {
  require_rows("all_to_all", *this, x, total(send_rows), send_rows);
  require_rows("all_to_all", *this, out, total(receive_rows), receive_rows);
  require_pair("all_to_all", x, out);
  FULCRUM_REQUIRE(send_rows[rank()] == receive_rows[rank()],
                  "all_to_all: rank {} sends itself {} rows and receives {}", rank(),
                  send_rows[rank()], receive_rows[rank()]);
  if (alone()) {
    out.copy_from(x);
    return {};
  }
  const std::vector<std::int64_t> sent = times(send_rows, row_bytes(x));
  const std::vector<std::int64_t> received = times(receive_rows, row_bytes(out));
  return start_where(
      x, [&] { return start_all_to_all(group_, x.detach(), sent, out.detach(), received); },
      [&] { return cuda::all_to_all(group_, x.detach(), sent, out.detach(), received); });
}

Tensor Communicator::all_to_all(const Tensor& x, std::span<const std::int64_t> send_rows,
                                std::span<const std::int64_t> receive_rows) const {
  FULCRUM_REQUIRE(x.rank() >= 1, "all_to_all: at least one dimension; got {}", x.shape());
  const Tensor out = Tensor::empty(with_rows(x, total(receive_rows)), x.dtype(), x.device());
  all_to_all_async(x, send_rows, out, receive_rows).wait();
  return out;
}

std::vector<std::int64_t> Communicator::all_to_all(std::span<const std::int64_t> values) const {
  const std::vector<std::int64_t> ones(static_cast<std::size_t>(size()), 1);
  return all_to_all(Tensor::from(std::vector(values.begin(), values.end()),
                                 {static_cast<std::int64_t>(values.size())}),
                    ones, ones)
      .to_vector<std::int64_t>();
}

}  // namespace fulcrum::parallel
