#include "tests/subprocess.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "framework/core/cuda_memory.h"
#include "framework/core/error.h"
#include "framework/core/file.h"

namespace fulcrum::testing {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "'";
  for (const char c : text) result += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return result + "'";
}

// Shell text that sets Open MPI's variables to those of the shell that started the tests, as
// MPI_Init sets more of them; under mpirun, where they are the launcher's, to none. Read before
// main.
const std::string kEnvironment = [] {
  std::string text =
      "for name in $(env | sed -n "
      "'s/^\\(OMPI_[A-Za-z0-9_]*\\|PMIX_[A-Za-z0-9_]*\\|ORTE_[A-Za-z0-9_]*\\)=.*/\\1/p'); "
      "do unset $name; done; export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1; ";
  if (std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr) return text;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string setting = *variable;
    if (!setting.starts_with("OMPI_MCA_")) continue;
    const std::size_t value = setting.find('=') + 1;
    text += fmt::format("export {}{}; ", setting.substr(0, value), quoted(setting.substr(value)));
  }
  return text;
}();

int exit_code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// The parent of a process, from /proc; -1 when it is gone or a zombie.
pid_t parent_of(const std::filesystem::path& process) {
  std::ifstream file(process / "stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return -1;
  char state = 0;
  int parent = -1;
  std::sscanf(text.c_str() + name_end + 1, " %c %d", &state, &parent);
  return state == 'Z' ? -1 : parent;
}

}  // namespace

Finished run(const std::string& command, int limit_seconds) {
  const std::string shell = fmt::format("{}exec timeout -k 5 {} sh -c {} 2>&1 </dev/null",
                                        kEnvironment, limit_seconds, quoted(command));
  FILE* pipe = popen(shell.c_str(), "r");
  FULCRUM_CHECK(pipe != nullptr, "cannot start {}", command);
  Finished result;
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe))
    result.output.append(buffer, n);
  result.exit_code = exit_code_of(pclose(pipe));
  return result;
}

Process::Process(const std::string& command, std::filesystem::path output)
    : output_(std::move(output)) {
  const std::string shell = kEnvironment + ("exec " + command);
  // Before the fork, so that nobody reads what an earlier process wrote there.
  const int out = open(output_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  FULCRUM_CHECK(out >= 0, "cannot write {}", output_.string());
  id_ = fork();
  if (id_ != 0) close(out);
  FULCRUM_CHECK(id_ >= 0, "cannot start {}", command);
  if (id_ > 0) return;
  dup2(out, STDOUT_FILENO);
  dup2(out, STDERR_FILENO);
  dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
  execl("/bin/sh", "sh", "-c", shell.c_str(), static_cast<char*>(nullptr));
  _exit(127);
}

Process::~Process() {
  if (running()) wait(0);
}

std::vector<pid_t> Process::children() const {
  std::vector<pid_t> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (parent_of(entry.path()) == id_) children.push_back(std::stoi(name));
  }
  return children;
}

bool Process::running() {
  if (!ended_) ended_ = waitpid(id_, &status_, WNOHANG) == id_;
  return !ended_;
}

Finished Process::wait(int limit_seconds) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(limit_seconds);
  Finished result;
  while (running() && std::chrono::steady_clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  if (running()) {
    for (const pid_t child : children()) kill(child, SIGKILL);
    kill(id_, SIGKILL);
    waitpid(id_, &status_, 0);
    ended_ = true;
    result.exit_code = 124;
  } else {
    result.exit_code = exit_code_of(status_);
  }
  if (std::filesystem::exists(output_)) result.output = read_text(output_);
  return result;
}

std::string mpirun(int ranks) { return fmt::format("mpirun -n {} --oversubscribe ", ranks); }

std::string mpirun_on_gpus(int ranks) {
  const std::string start = mpirun(ranks) + "--bind-to none ";
  if (ranks <= cuda_device_count()) return start;
  return start + "bash -c 'NCCL_HOSTID=$OMPI_COMM_WORLD_RANK exec \"$@\"' _ ";
}

std::string test_program() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

}  // namespace fulcrum::testing
