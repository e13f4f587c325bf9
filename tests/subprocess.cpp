#include "tests/subprocess.h"

#include <fmt/format.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>

#include "framework/core/error.h"

namespace fulcrum::testing {

Finished run(const std::string& command, int limit_seconds) {
  std::string quoted;
  for (const char c : command) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  const std::string shell = fmt::format(
      "for name in $(env | sed -n "
      "'s/^\\(OMPI_[A-Za-z0-9_]*\\|PMIX_[A-Za-z0-9_]*\\|ORTE_[A-Za-z0-9_]*\\)=.*/\\1/p'); "
      "do unset $name; done; export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; "
      "exec timeout -k 5 {} sh -c '{}' 2>&1 </dev/null",
      limit_seconds, quoted);
  FILE* pipe = popen(shell.c_str(), "r");
  FULCRUM_CHECK(pipe != nullptr, "cannot start {}", command);
  Finished result;
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe))
    result.output.append(buffer, n);
  const int status = pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

std::string mpirun(int ranks) { return fmt::format("mpirun -n {} --oversubscribe ", ranks); }

std::string test_program() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

}  // namespace fulcrum::testing
