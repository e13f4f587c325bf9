// The test program. Alone it runs everything but [mpi]; under mpirun, `fulcrum_tests [mpi]` runs
// the distributed tests: every rank runs the same cases in the same order, and only rank 0 prints
// passes. --hang-rank N makes that rank wait for a debugger.

#if !__has_include(<catch2/catch_all.hpp>)
#define CATCH_CONFIG_RUNNER
#endif
#include <mpi.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "framework/core/device.h"
#include "parallel/device_collectives.h"
#include "tests/catch.h"

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);

  std::vector<char*> rest;
  for (int i = 0; i < argc; ++i) {
    if (std::strcmp(argv[i], "--hang-rank") == 0 && i + 1 < argc) {
      if (std::atoi(argv[++i]) == rank) {
        std::fprintf(stderr, "rank %d waits for a debugger: attach to process %d\n", rank,
                     getpid());
        for (volatile bool waiting = true; waiting;) sleep(1);
      }
      continue;
    }
    rest.push_back(argv[i]);
  }
  std::string quiet;
  if (size > 1 && rank != 0) {
    // Failures of other ranks still appear: they are written to standard error below.
    quiet = "/tmp/fulcrum_tests.rank" + std::to_string(rank) + "." + std::to_string(getppid());
    rest.push_back(const_cast<char*>("-o"));
    rest.push_back(quiet.data());
  }
  const int failed = Catch::Session().run(static_cast<int>(rest.size()), rest.data());
  if (!quiet.empty()) {
    if (failed != 0) {
      std::fprintf(stderr, "---- rank %d ----\n", rank);
      if (FILE* report = std::fopen(quiet.c_str(), "r")) {
        char line[512];
        while (std::fgets(line, sizeof line, report)) std::fputs(line, stderr);
        std::fclose(report);
      }
    }
    std::remove(quiet.c_str());
  }
  int worst = failed;
  MPI_Allreduce(&failed, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  if constexpr (fulcrum::kBuiltWithCuda) fulcrum::parallel::cuda::destroy_all();
  MPI_Finalize();
  return worst == 0 ? 0 : 1;
}
