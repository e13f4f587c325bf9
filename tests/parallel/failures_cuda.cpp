// Jobs that fail on GPUs: each runs as an mpirun of its own, whose ranks are hidden test cases of
// this program.

#include <chrono>
#include <functional>
#include <thread>

#include "framework/core/cuda_graph.h"
#include "framework/core/cuda_memory.h"
#include "framework/core/error.h"
#include "parallel/watchdog.h"
#include "tests/catch.h"
#include "tests/parallel/world.h"
#include "tests/subprocess.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::contains;
using fulcrum::testing::world;
using fulcrum::testing::world_gpu;

namespace {

testing::Finished run_on_gpus(int ranks, const std::string& name) {
  return testing::run(testing::mpirun_on_gpus(ranks) + testing::test_program() + " '" + name + "'",
                      120);
}

void hang(const std::function<void()>& join) {
  join();
  cuda_synchronize();
  world().barrier();
  set_hang_timeout(0.5);
  if (world().rank() == world().size() - 1) std::this_thread::sleep_for(std::chrono::seconds(100));
  join();
  cuda_synchronize();
}

void check_report(const testing::Finished& job) {
  INFO(job.output);
  CHECK(job.exit_code == 1);
  CHECK(contains(job.output, "all_reduce over the world group (4000768 bytes) has not finished"));
  CHECK(contains(job.output, "on the GPU"));
  CHECK(contains(job.output, "parallel.hang_timeout_s"));
}

}  // namespace

TEST_CASE("child: a rank that never joins on a GPU", "[.child]") {
  const Tensor x = Tensor::full({1000000}, 1.0, DType::f32, world_gpu());
  hang([&] { world().all_reduce(x); });
}

TEST_CASE("child: a rank that never replays", "[.child]") {
  const Tensor x = Tensor::full({1000000}, 1.0, DType::f32, world_gpu());
  world().all_reduce(x);
  CudaGraph graph;
  graph.capture([&] { world().all_reduce(x); });
  hang([&] { graph.replay(); });
}

TEST_CASE("child: ranks that share a GPU", "[.child]") {
  const Tensor x = Tensor::full({10}, 1.0, DType::f32, world_gpu());
  try {
    world().all_reduce(x);
  } catch (const UserError& error) {
    abort_job(2, error.what());
  }
}

TEST_CASE("a rank that never joins on a GPU is reported and the job ends", "[gpu][slow]") {
  check_report(run_on_gpus(2, "child: a rank that never joins on a GPU"));
  check_report(run_on_gpus(2, "child: a rank that never replays"));
}

TEST_CASE("ranks must not share a GPU", "[gpu][slow]") {
  const testing::Finished job =
      testing::run(testing::mpirun(cuda_device_count() + 1) + testing::test_program() +
                   " 'child: ranks that share a GPU'");
  INFO(job.output);
  CHECK(job.exit_code == 2);
  CHECK(contains(job.output, "share a GPU"));
}
