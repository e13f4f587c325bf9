#pragma once
// Programs started by tests, as a user would start them from a shell.

#include <string>

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

// Path of the running test program.
std::string test_program();

}  // namespace fulcrum::testing
