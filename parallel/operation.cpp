#include "parallel/operation.h"

#include <fmt/ranges.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <set>
#include <thread>

#include "framework/core/error.h"
#include "parallel/mpi_check.h"
#include "parallel/watchdog.h"

namespace fulcrum::parallel {

namespace {
constexpr int kTags = 32768;  // what every MPI has
}

Group::Group(MPI_Comm own, std::string group_name) : comm(own), name(std::move(group_name)) {
  FULCRUM_MPI(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN));
  FULCRUM_MPI(MPI_Comm_rank(comm, &rank));
  FULCRUM_MPI(MPI_Comm_size(comm, &size));
  MPI_Group mine;
  MPI_Group world;
  FULCRUM_MPI(MPI_Comm_group(comm, &mine));
  FULCRUM_MPI(MPI_Comm_group(MPI_COMM_WORLD, &world));
  std::vector<int> ranks(static_cast<std::size_t>(size));
  for (int r = 0; r < size; ++r) ranks[r] = r;
  world_ranks.resize(ranks.size());
  FULCRUM_MPI(MPI_Group_translate_ranks(mine, size, ranks.data(), world, world_ranks.data()));
  MPI_Group_free(&mine);
  MPI_Group_free(&world);
}

Group::~Group() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (comm != MPI_COMM_NULL && !finalized && std::uncaught_exceptions() == 0) MPI_Comm_free(&comm);
}

int Group::take_tag() {
  next_tag = (next_tag + 1) % kTags;
  return next_tag;
}

std::int64_t& max_message_bytes() {
  static std::int64_t bytes = std::int64_t{1} << 30;
  return bytes;
}

Operation::Operation(std::shared_ptr<Group> group, const char* name, std::int64_t bytes, int tag,
                     std::vector<Stage> stages)
    : group_(std::move(group)), name_(name), bytes_(bytes), tag_(tag), stages_(std::move(stages)) {}

void Operation::send(int peer, const void* data, std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += max_message_bytes()) {
    MPI_Request request;
    FULCRUM_MPI(MPI_Isend(static_cast<const char*>(data) + at,
                          static_cast<int>(std::min(max_message_bytes(), bytes - at)), MPI_BYTE,
                          peer, tag_, group_->comm, &request));
    requests_.push_back(request);
    sources_.push_back(group_->world_ranks[peer]);
  }
}

void Operation::receive(int peer, void* data, std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += max_message_bytes()) {
    MPI_Request request;
    FULCRUM_MPI(MPI_Irecv(static_cast<char*>(data) + at,
                          static_cast<int>(std::min(max_message_bytes(), bytes - at)), MPI_BYTE,
                          peer, tag_, group_->comm, &request));
    requests_.push_back(request);
    sources_.push_back(group_->world_ranks[peer]);
  }
}

void Operation::add(MPI_Request request) {
  requests_.push_back(request);
  sources_.push_back(-1);
}

bool Operation::step() {
  if (previous_) {
    if (!previous_->advance()) return false;
    previous_.reset();
  }
  if (!requests_.empty()) {
    int done = 0;
    FULCRUM_MPI(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done,
                            MPI_STATUSES_IGNORE));
    if (!done) return false;
    requests_.clear();
    sources_.clear();
  }
  if (next_stage_ == stages_.size()) {
    finished_ = true;
    return false;
  }
  stages_[next_stage_++](*this);
  return true;
}

bool Operation::advance() {
  // What the stages held is let go after the lock: it may hold the request of this very operation.
  std::vector<Stage> done;
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(error_);
  try {
    while (!finished_ && step()) {
    }
  } catch (...) {
    error_ = std::current_exception();
    throw;
  }
  if (finished_) done.swap(stages_);
  return finished_;
}

bool Operation::finished() {
  const std::lock_guard lock(mutex_);
  return finished_;
}

void Operation::wait() {
  if (advance()) return;
  const Watch watch(fmt::format("{} over the {} group", name_, group_->name), bytes_,
                    [this] { return missing(); });
  // Busy at first for the sake of latency, then kind to ranks and threads that share the core.
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  for (int polls = 0; !advance(); ++polls) {
    if (polls < 64) continue;
    if (Clock::now() - start < std::chrono::milliseconds(1)) {
      sched_yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
}

std::string Operation::missing() {
  const std::lock_guard lock(mutex_);
  if (previous_) return previous_->missing();
  std::set<int> ranks;
  for (std::size_t i = 0; i < requests_.size(); ++i) {
    int done = 0;
    if (sources_[i] < 0 || requests_[i] == MPI_REQUEST_NULL) continue;
    MPI_Request_get_status(requests_[i], &done, MPI_STATUS_IGNORE);
    if (!done) ranks.insert(sources_[i]);
  }
  if (ranks.empty()) return {};
  return fmt::format("no answer from rank{} {}", ranks.size() > 1 ? "s" : "",
                     fmt::join(ranks, ", "));
}

}  // namespace fulcrum::parallel
