#include "parallel/communicator.h"

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

}  // namespace fulcrum::parallel
