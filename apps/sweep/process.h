#pragma once
// Child processes of the sweep driver.

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace fulcrum::apps {

struct Ending {
  int code = 0;    // exit status, when signal is 0
  int signal = 0;  // that ended it
  bool success() const { return code == 0 && signal == 0; }
  std::string text() const;  // "exit code 3", "signal 9 (Killed)"
};

// A program in a process group of its own, so that Ctrl-C on the terminal reaches the driver alone.
// It gets SIGTERM when the driver dies. Output and errors are appended to a log; standard input is
// empty.
class Process {
 public:
  // Throws UserError when the program cannot be started.
  Process(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
          const std::filesystem::path& log);
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  ~Process();  // kills it when it still runs

  pid_t pid() const { return pid_; }
  std::optional<Ending> poll();  // without waiting
  void terminate();              // SIGTERM, to the program alone: mpirun passes it on
  void kill();                   // SIGKILL, to the program and all its descendants
  double seconds() const;        // since it began

 private:
  pid_t pid_ = 0;  // 0: ended
  std::chrono::steady_clock::time_point begin_;
};

// The environment of a child: this process's without what an outer MPI or its launcher set
// (OMPI_COMM_WORLD_RANK, PMIX_*, …), with OMP_NUM_THREADS, and, when run as root, with Open MPI's
// consent to that.
std::vector<std::string> child_environment(std::int64_t threads);

// True when the process lives and its command line holds `text` (a process id may have been given
// to another program).
bool process_runs(pid_t pid, const std::string& text);

// Processors that this process may use.
std::int64_t available_cores();

// While it lives, SIGINT and SIGTERM only raise a flag; the number of signals is counted.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  static int count();
};

}  // namespace fulcrum::apps
