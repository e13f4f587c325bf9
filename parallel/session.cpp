#include "parallel/session.h"

#include <mpi.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <thread>

#include "framework/core/device.h"
#include "framework/core/error.h"
#include "parallel/device_collectives.h"
#include "parallel/mpi_check.h"
#include "parallel/threads.h"

namespace fulcrum::parallel {
namespace {

const char* thread_level_name(int level) {
  switch (level) {
    case MPI_THREAD_SINGLE:
      return "MPI_THREAD_SINGLE";
    case MPI_THREAD_FUNNELED:
      return "MPI_THREAD_FUNNELED";
    case MPI_THREAD_SERIALIZED:
      return "MPI_THREAD_SERIALIZED";
    case MPI_THREAD_MULTIPLE:
      return "MPI_THREAD_MULTIPLE";
    default:
      return "an unknown level";
  }
}

// One flag shared by the ranks of a host: who sets it first reports the failure. It lives until the
// process ends, because a rank may fail at any moment.
struct HostFlag {
  std::atomic<int>* claimed = nullptr;
  bool first_host = true;
};
HostFlag host_flag;

void make_host_flag(MPI_Comm local, int local_rank) {
  static_assert(std::atomic<int>::is_always_lock_free);
  MPI_Win window;
  void* base = nullptr;
  FULCRUM_MPI(
      MPI_Win_allocate_shared(local_rank == 0 ? 64 : 0, 1, MPI_INFO_NULL, local, &base, &window));
  MPI_Aint bytes = 0;
  int unit = 0;
  FULCRUM_MPI(MPI_Win_shared_query(window, 0, &bytes, &unit, &base));
  auto* flag = static_cast<std::atomic<int>*>(base);
  if (local_rank == 0) new (flag) std::atomic<int>(0);
  FULCRUM_MPI(MPI_Barrier(local));
  host_flag.claimed = flag;
}

bool mpi_usable() {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized && !finalized;
}

}  // namespace

Session::Session() : exceptions_(std::uncaught_exceptions()) {
  int initialized = 0;
  MPI_Initialized(&initialized);
  int level = MPI_THREAD_SINGLE;
  if (initialized) {
    FULCRUM_MPI(MPI_Query_thread(&level));
  } else {
    FULCRUM_MPI(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level));
    finalize_ = true;
  }
  FULCRUM_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
  FULCRUM_MPI(MPI_Comm_rank(MPI_COMM_WORLD, &rank_));
  FULCRUM_MPI(MPI_Comm_size(MPI_COMM_WORLD, &size_));
  set_error_rank(size_ > 1 ? rank_ : -1);
  if (level < MPI_THREAD_MULTIPLE) {
    if (finalize_) MPI_Finalize();
    throw UserError(
        fmt::format("MPI must allow calls from several threads at once (MPI_THREAD_MULTIPLE); this "
                    "one gives {}. "
                    "Use an MPI that was built with thread support",
                    thread_level_name(level)));
  }
  MPI_Comm local;
  FULCRUM_MPI(
      MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &local));
  FULCRUM_MPI(MPI_Comm_rank(local, &local_rank_));
  FULCRUM_MPI(MPI_Comm_size(local, &local_size_));
  if (size_ > 1 && host_flag.claimed == nullptr) {
    int lowest = rank_;
    FULCRUM_MPI(MPI_Allreduce(&rank_, &lowest, 1, MPI_INT, MPI_MIN, local));
    host_flag.first_host = lowest == 0;
    make_host_flag(local, local_rank_);
  }
  FULCRUM_MPI(MPI_Comm_free(&local));
}

Session::~Session() {
  if (!finalize_ || std::uncaught_exceptions() != exceptions_) return;
  if constexpr (kBuiltWithCuda) cuda::destroy_all();
  host_flag = {};  // its memory goes with MPI
  MPI_Finalize();
}

int Session::set_threads(int requested) {
  int threads = requested;
  if (threads <= 0) {
    if (const char* environment = std::getenv("OMP_NUM_THREADS")) threads = std::atoi(environment);
  }
  if (threads <= 0) {
    const CoreShare share = measure_cores(local_size_);
    threads = threads_of(share);
    const std::string advice = binding_advice(share);
    if (!advice.empty() && rank_ == 0)
      std::fprintf(stderr, "fulcrum: warning: %s\n", advice.c_str());
  }
  use_threads(threads);
  return threads;
}

void abort_job(int code, const std::string& message) {
  using namespace std::chrono_literals;
  int rank = 0;
  int size = 1;
  const bool usable = mpi_usable();
  if (usable) {
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
  }
  if (!host_flag.first_host) std::this_thread::sleep_for(500ms);
  if (host_flag.claimed != nullptr && host_flag.claimed->exchange(1) != 0) {
    std::this_thread::sleep_for(5s);  // the first one is taking the job down
  } else {
    const std::string where = size > 1 ? fmt::format(" (rank {} of {})", rank, size) : "";
    std::fprintf(stderr, "fulcrum: %s%s\n", message.c_str(), where.c_str());
    std::fflush(stderr);
  }
  if constexpr (kBuiltWithCuda) cuda::abort_all();
  if (usable) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

}  // namespace fulcrum::parallel
