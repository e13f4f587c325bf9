#pragma once
// How many threads a rank should use.

#include <set>
#include <string>

namespace fulcrum::parallel {

struct CoreShare {
  int host_cores = 1;   // physical cores that the ranks of this host may use together
  int bound_cores = 1;  // physical cores that this rank may run on
  int local_ranks = 1;
};

// max(1, host_cores / local_ranks), but never more than the rank may run on.
int threads_of(const CoreShare& share);

// What to tell the user when the launcher bound a rank to fewer cores than its share; empty when
// all is well.
std::string binding_advice(const CoreShare& share);

// Measures this process. The host's cores are those that the launcher (the parent process) may run
// on, limited by the CPU quota of a container.
CoreShare measure_cores(int local_ranks);

// "0-3,8" to {0, 1, 2, 3, 8}; the format of /sys and /proc. Parts that are no numbers are skipped.
std::set<int> parse_cpu_list(const std::string& text);

// Sets the number of threads of OpenMP and of BLAS.
void use_threads(int threads);

}  // namespace fulcrum::parallel
