#include "parallel/communicator.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "parallel/collectives.h"
#include "parallel/device_collectives.h"
#include "parallel/mpi_check.h"
#include "parallel/operation.h"
#include "parallel/watchdog.h"

namespace fulcrum::parallel {
namespace {

std::shared_ptr<Group> alone_group(const std::string& name, std::vector<int> world_ranks) {
  auto group = std::make_shared<Group>();
  group->name = name;
  group->world_ranks = std::move(world_ranks);
  return group;
}

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

void require_summable(const char* op, const Tensor& x) {
  const DType dtype = x.dtype();
  const bool anywhere = dtype == DType::f32 || dtype == DType::f64 || dtype == DType::i64;
  const bool on_gpu = dtype == DType::bf16 || dtype == DType::i32 || dtype == DType::u8;
  FULCRUM_REQUIRE(anywhere || (on_gpu && x.device().is_cuda()),
                  "{}: f32, f64 or i64, on a GPU also bf16, i32 or u8; got {} {} on {}", op, dtype,
                  x.shape(), x.device());
}

void require_pair(const char* op, const Tensor& x, const Tensor& out) {
  FULCRUM_REQUIRE(
      x.dtype() == out.dtype() && x.device() == out.device() && row_bytes(x) == row_bytes(out),
      "{}: rows of {} {} on {} into {} {} on {}", op, x.dtype(), x.shape(), x.device(), out.dtype(),
      out.shape(), out.device());
}

// The collective where the tensor lies.
template <class Host, class Gpu>
Request start_where(const Tensor& x, Host&& host, [[maybe_unused]] Gpu&& gpu) {
  if constexpr (kBuiltWithCuda) {
    if (x.device().is_cuda()) return gpu();
  }
  return host();
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

Communicator::Communicator() : group_(alone_group("single", {0})) {}

Communicator Communicator::world() {
  int size = 1;
  FULCRUM_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size));
  if (size == 1) return Communicator(alone_group("world", {0}));
  const Watch watch("start of the job", 0);
  MPI_Comm comm;
  FULCRUM_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm));
  return Communicator(std::make_shared<Group>(comm, "world"));
}

Communicator Communicator::split(int color, int key, const std::string& name) const {
  if (alone()) return Communicator(alone_group(name, group_->world_ranks));
  const Watch watch("making of the " + name + " group", 0);
  MPI_Comm comm;
  FULCRUM_MPI(MPI_Comm_split(group_->comm, color, key, &comm));
  return Communicator(std::make_shared<Group>(comm, name));
}

Communicator Communicator::duplicate(const std::string& name) const {
  return split(0, rank(), name);
}

int Communicator::rank() const { return group_->rank; }
int Communicator::size() const { return group_->size; }
const std::string& Communicator::name() const { return group_->name; }

void Communicator::barrier() const {
  if (!alone()) start_barrier(group_).wait();
}

Request Communicator::all_reduce_async(const Tensor& x, Reduce op) const {
  if (alone() || x.numel() == 0) return {};
  require_summable("all_reduce", x);
  return start_where(
      x, [&] { return start_all_reduce(group_, x.detach(), x.raw(), x.numel(), x.dtype(), op); },
      [&] { return cuda::all_reduce(group_, x.detach(), op); });
}

template <class T>
void Communicator::all_reduce(std::span<T> x, Reduce op) const {
  if (alone() || x.empty()) return;
  start_all_reduce(group_, {}, x.data(), static_cast<std::int64_t>(x.size()), dtype_of<T>, op)
      .wait();
}
template void Communicator::all_reduce(std::span<float>, Reduce) const;
template void Communicator::all_reduce(std::span<double>, Reduce) const;
template void Communicator::all_reduce(std::span<std::int64_t>, Reduce) const;

double Communicator::sum(double value) const {
  all_reduce(std::span(&value, 1));
  return value;
}
std::int64_t Communicator::sum(std::int64_t value) const {
  all_reduce(std::span(&value, 1));
  return value;
}
double Communicator::max(double value) const {
  all_reduce(std::span(&value, 1), Reduce::max);
  return value;
}
std::int64_t Communicator::max(std::int64_t value) const {
  all_reduce(std::span(&value, 1), Reduce::max);
  return value;
}
bool Communicator::any(bool flag) const { return max(std::int64_t{flag}) != 0; }

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

Request Communicator::broadcast_async(const Tensor& x, int root) const {
  FULCRUM_REQUIRE(0 <= root && root < size(), "broadcast: root {} of {} ranks", root, size());
  if (alone() || x.numel() == 0) return {};
  return start_where(
      x, [&] { return start_broadcast(group_, x.detach(), x.raw(), x.bytes(), root); },
      [&] { return cuda::broadcast(group_, x.detach(), root); });
}

std::string Communicator::broadcast(const std::string& text, int root) const {
  FULCRUM_REQUIRE(0 <= root && root < size(), "broadcast: root {} of {} ranks", root, size());
  if (alone()) return text;
  std::int64_t length = static_cast<std::int64_t>(text.size());
  start_broadcast(group_, {}, &length, sizeof length, root).wait();
  std::string result = text;
  result.resize(static_cast<std::size_t>(length));
  if (length > 0) start_broadcast(group_, {}, result.data(), length, root).wait();
  return result;
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
