#include "parallel/threads.h"

#include <fmt/format.h>
#include <omp.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>

extern "C" void openblas_set_num_threads(int threads);

namespace fulcrum::parallel {
namespace {

std::optional<std::string> first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return line;
}

std::set<int> own_cpus() {
  cpu_set_t mask;
  std::set<int> cpus;
  if (sched_getaffinity(0, sizeof mask, &mask) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &mask)) cpus.insert(cpu);
    }
  }
  return cpus;
}

std::set<int> launcher_cpus() {
  std::ifstream status("/proc/" + std::to_string(getppid()) + "/status");
  const std::string key = "Cpus_allowed_list:";
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key, 0) == 0) return parse_cpu_list(line.substr(key.size()));
  }
  return {};
}

// Hardware threads of one core count once: a second one adds little to vector code and costs its
// cache.
int physical_cores(const std::set<int>& cpus) {
  std::set<int> cores;
  for (const int cpu : cpus) {
    const std::string path =
        fmt::format("/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list", cpu);
    int core = cpu;
    for (const int sibling : parse_cpu_list(first_line(path).value_or("")))
      core = std::min(core, sibling);
    cores.insert(core);
  }
  return std::max<int>(1, static_cast<int>(cores.size()));
}

// Cores worth of processor time a container may use; none when unlimited.
std::optional<int> quota() {
  double limit = -1.0;
  double period = 1.0;
  if (const auto line = first_line("/sys/fs/cgroup/cpu.max")) {
    std::istringstream(*line) >> limit >> period;  // "max 100000" leaves limit at 0
  } else if (const auto allowed = first_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")) {
    std::istringstream(*allowed) >> limit;
    std::istringstream(first_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us").value_or("100000")) >>
        period;
  }
  if (limit <= 0.0 || period <= 0.0) return std::nullopt;
  return std::max(1, static_cast<int>(limit / period));
}

}  // namespace

int threads_of(const CoreShare& share) {
  return std::max(1,
                  std::min(share.host_cores / std::max(1, share.local_ranks), share.bound_cores));
}

std::string binding_advice(const CoreShare& share) {
  const int fair = share.host_cores / std::max(1, share.local_ranks);
  if (share.bound_cores >= fair) return {};
  return fmt::format(
      "the launcher bound this rank to {} of this host's {} cores; shared among the ranks on it "
      "({}) it could use {}. "
      "Start with `mpirun --bind-to none`",
      share.bound_cores, share.host_cores, share.local_ranks, fair);
}

CoreShare measure_cores(int local_ranks) {
  const std::set<int> own = own_cpus();
  std::set<int> host = launcher_cpus();
  host.insert(own.begin(), own.end());
  CoreShare share{physical_cores(host), physical_cores(own), local_ranks};
  if (const auto limit = quota()) share.host_cores = std::min(share.host_cores, *limit);
  return share;
}

std::set<int> parse_cpu_list(const std::string& text) {
  std::set<int> cpus;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    int first = 0;
    int last = 0;
    std::istringstream range(part);
    if (!(range >> first)) continue;
    char dash = 0;
    if (!(range >> dash >> last) || dash != '-') last = first;
    for (int cpu = first; cpu <= last; ++cpu) cpus.insert(cpu);
  }
  return cpus;
}

void use_threads(int threads) {
  omp_set_num_threads(threads);
  openblas_set_num_threads(threads);
}

}  // namespace fulcrum::parallel
