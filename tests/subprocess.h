#pragma once
// Programs started by tests, as a user would start them from a shell.

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace fulcrum::testing {

struct Finished {
  int exit_code = -1;  // 128 + signal when killed; 124 after the time limit
  std::string output;  // standard output and error together
};

// Runs a shell command with a time limit. Variables that the MPI library left in this process are
// taken out of its environment, so that an mpirun inside is a job of its own.
Finished run(const std::string& command, int limit_seconds = 60);

// "mpirun -n RANKS --oversubscribe " with what the root user of a container needs.
std::string mpirun(int ranks);
// The same, where ranks that share a GPU look like hosts of their own to NCCL.
std::string mpirun_on_gpus(int ranks);

// A shell command that runs while the test goes on. Its environment is that of run().
class Process {
 public:
  // Standard output and error go to `output`.
  Process(const std::string& command, std::filesystem::path output);
  // Kills what still runs.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t id() const { return id_; }
  // The processes that it started and that still run: the ranks, when the command is mpirun.
  std::vector<pid_t> children() const;
  bool running();
  // Waits for the end; 124 and killed with its children when that takes longer than the limit.
  Finished wait(int limit_seconds = 60);

 private:
  std::filesystem::path output_;
  pid_t id_ = -1;
  bool ended_ = false;
  int status_ = 0;
};

// Path of the running test program.
std::string test_program();

}  // namespace fulcrum::testing
