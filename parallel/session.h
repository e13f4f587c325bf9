#pragma once
// The life of MPI in this process, and its end in an emergency.

#include <string>

namespace fulcrum::parallel {

// Initialises MPI with MPI_THREAD_MULTIPLE and finalises it at the end of the scope, NCCL before
// it; does neither when somebody else has initialised it before. Works without mpirun: the job then
// has one rank. Collective over the job. Errors of MPI calls are returned from then on
// (parallel/mpi_check.h), and InternalError messages carry the rank.
//
// Throws UserError when MPI has been initialised with, or gives, less than MPI_THREAD_MULTIPLE.
// When the scope ends by an exception, MPI is left as it is: the other ranks might never come to
// finalise it. Catch inside and call abort_job.
class Session {
 public:
  Session();
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // Among the ranks of this host.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  // Number of OpenMP and BLAS threads of this rank: `requested`, or, when that is 0,
  // OMP_NUM_THREADS, or else this rank's share of the host's cores as far as it is allowed to run
  // on them (parallel/threads.h). Rank 0 warns on standard error when the launcher bound it to less
  // than its share. Returns the number.
  int set_threads(int requested);

 private:
  int rank_ = 0;
  int size_ = 1;
  int local_rank_ = 0;
  int local_size_ = 1;
  bool finalize_ = false;
  int exceptions_ = 0;  // in flight when the session began
};

// Prints "fulcrum: message (rank r of n)" on standard error, ends what is under way on a device and
// takes the whole job down with this exit code. When several ranks come here at once, the first of
// a host prints and the others wait to be taken down; other hosts give rank 0's host a head start.
// Works without a session too (one rank). Safe to call from any thread.
[[noreturn]] void abort_job(int code, const std::string& message);

}  // namespace fulcrum::parallel
