#include "apps/sweep/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <string_view>

#include "framework/core/error.h"

extern char** environ;

namespace fulcrum::apps {
namespace {

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> p;
  for (const std::string& text : texts) p.push_back(const_cast<char*>(text.c_str()));
  p.push_back(nullptr);
  return p;
}

// Only calls that are safe between fork and exec. Reports errno through `report`, which closes by
// itself when exec succeeds.
[[noreturn]] void become(char** arguments, char** environment, int log, int empty, int report,
                         pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);  // it died before the line above
  struct sigaction standard = {};
  standard.sa_handler = SIG_DFL;
  for (const int number : {SIGINT, SIGTERM, SIGPIPE}) sigaction(number, &standard, nullptr);
  dup2(empty, STDIN_FILENO);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  execvpe(arguments[0], arguments, environment);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(report, &error, sizeof error);
  _exit(127);
}

// Children of every process, from /proc.
std::multimap<pid_t, pid_t> process_tree() {
  std::multimap<pid_t, pid_t> children;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::ifstream file(entry.path() / "stat");
    std::string text;
    std::getline(file, text);
    const std::size_t end = text.rfind(')');  // the name before it may hold anything
    if (end == std::string::npos || end + 4 >= text.size()) continue;
    children.emplace(std::atoi(text.c_str() + end + 4), std::atoi(name.c_str()));
  }
  return children;
}

void kill_descendants(pid_t root) {
  const std::multimap<pid_t, pid_t> children = process_tree();
  std::vector<pid_t> all = {root};
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto [first, last] = children.equal_range(all[i]);
    for (auto child = first; child != last; ++child) all.push_back(child->second);
  }
  for (const pid_t pid : all) ::kill(pid, SIGKILL);
}

volatile std::sig_atomic_t stop_signals = 0;
void count_signal(int) { stop_signals = stop_signals + 1; }
struct sigaction saved_int, saved_term;

}  // namespace

std::string Ending::text() const {
  if (signal != 0) return fmt::format("signal {} ({})", signal, strsignal(signal));
  return fmt::format("exit code {}", code);
}

Process::Process(const std::vector<std::string>& arguments,
                 const std::vector<std::string>& environment, const std::filesystem::path& log) {
  const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (output < 0)
    throw IoError(fmt::format("{}: cannot be written: {}", log.string(), std::strerror(errno)));
  const int empty = open("/dev/null", O_RDONLY | O_CLOEXEC);
  std::array<int, 2> report = {-1, -1};
  if (empty < 0 || pipe2(report.data(), O_CLOEXEC) != 0)
    throw IoError(fmt::format("cannot start a process: {}", std::strerror(errno)));
  std::vector<char*> argv = pointers(arguments);
  std::vector<char*> envp = pointers(environment);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) become(argv.data(), envp.data(), output, empty, report[1], parent);
  const int fork_error = errno;
  begin_ = std::chrono::steady_clock::now();
  close(output);
  close(empty);
  close(report[1]);
  int error = 0;
  const bool failed = pid_ > 0 && read(report[0], &error, sizeof error) == sizeof error;
  close(report[0]);
  if (pid_ < 0) throw IoError(fmt::format("cannot start a process: {}", std::strerror(fork_error)));
  if (failed) {
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
    throw UserError(fmt::format("'{}' cannot be started: {}", arguments[0], std::strerror(error)));
  }
}

Process::Process(Process&& other) noexcept : pid_(other.pid_), begin_(other.begin_) {
  other.pid_ = 0;
}

Process::~Process() {
  if (pid_ == 0) return;
  kill();
  waitpid(pid_, nullptr, 0);
}

std::optional<Ending> Process::poll() {
  int status = 0;
  if (pid_ == 0 || waitpid(pid_, &status, WNOHANG) != pid_) return std::nullopt;
  pid_ = 0;
  if (WIFSIGNALED(status)) return Ending{0, WTERMSIG(status)};
  return Ending{WEXITSTATUS(status), 0};
}

void Process::terminate() {
  if (pid_ != 0) ::kill(pid_, SIGTERM);
}

void Process::kill() {
  if (pid_ != 0) kill_descendants(pid_);
}

double Process::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
}

std::vector<std::string> child_environment(std::int64_t threads) {
  // OMPI_MCA_* may be the user's own settings; inside an MPI process they are the launcher's.
  const bool inside = std::getenv("OMPI_COMM_WORLD_SIZE") != nullptr ||
                      std::getenv("PMIX_RANK") != nullptr || std::getenv("PMI_RANK") != nullptr;
  const auto dropped = [&](std::string_view variable) {
    if (variable.starts_with("OMP_NUM_THREADS=") || variable.starts_with("OMPI_ALLOW_RUN_AS_ROOT"))
      return true;
    if (!inside) return false;
    for (const std::string_view prefix :
         {"OMPI_", "PMIX_", "PMI_", "PRTE_", "ORTE_", "MPI_LOCAL", "HYDRA_", "MPIR_"})
      if (variable.starts_with(prefix)) return true;
    return false;
  };
  std::vector<std::string> environment;
  for (char** variable = environ; *variable != nullptr; ++variable)
    if (!dropped(*variable)) environment.emplace_back(*variable);
  environment.push_back(fmt::format("OMP_NUM_THREADS={}", threads));
  if (geteuid() == 0) {
    environment.emplace_back("OMPI_ALLOW_RUN_AS_ROOT=1");
    environment.emplace_back("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1");
  }
  return environment;
}

bool process_runs(pid_t pid, const std::string& text) {
  std::ifstream file(fmt::format("/proc/{}/cmdline", pid), std::ios::binary);  // empty for a zombie
  const std::string line{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return line.find(text) != std::string::npos;
}

std::int64_t available_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

StopSignals::StopSignals() {
  stop_signals = 0;
  struct sigaction action = {};
  action.sa_handler = count_signal;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &saved_int);
  sigaction(SIGTERM, &action, &saved_term);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &saved_int, nullptr);
  sigaction(SIGTERM, &saved_term, nullptr);
}

int StopSignals::count() { return stop_signals; }

}  // namespace fulcrum::apps
