// Jobs that fail: each runs as an mpirun of its own, whose ranks are hidden test cases of this
// program.

#include <chrono>
#include <thread>

#include "framework/core/error.h"
#include "parallel/watchdog.h"
#include "tests/catch.h"
#include "tests/parallel/world.h"
#include "tests/subprocess.h"

using namespace fulcrum;
using namespace fulcrum::parallel;
using fulcrum::testing::world;

namespace {

testing::Finished run_case(int ranks, const std::string& name) {
  return testing::run(testing::mpirun(ranks) + testing::test_program() + " '" + name + "'", 60);
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("child: a rank that never joins", "[.child]") {
  world().barrier();
  set_hang_timeout(0.3);
  if (world().rank() == world().size() - 1) std::this_thread::sleep_for(std::chrono::seconds(50));
  std::vector<double> x(100000, 1.0);
  world().all_reduce(std::span(x));
}

TEST_CASE("child: every rank fails", "[.child]") {
  world().barrier();
  abort_job(2, "model.width must be even");
}

TEST_CASE("child: one rank fails", "[.child]") {
  if (world().rank() == 1) abort_job(3, "the file on this host is gone");
  world().barrier();
}

TEST_CASE("a rank that never joins is reported and the job ends", "[cli]") {
  const testing::Finished job = run_case(3, "child: a rank that never joins");
  INFO(job.output);
  CHECK(job.exit_code == 1);
  CHECK(count(job.output,
              "all_reduce over the world group (800000 bytes) has not finished after 0.") == 1);
  CHECK(count(job.output, "no answer from rank 2") == 1);
  CHECK(count(job.output, "parallel.hang_timeout_s") == 1);
}

TEST_CASE("of many failing ranks one speaks", "[cli]") {
  const testing::Finished job = run_case(4, "child: every rank fails");
  INFO(job.output);
  CHECK(job.exit_code == 2);
  CHECK(count(job.output, "fulcrum: model.width must be even (rank ") == 1);
}

TEST_CASE("a failing rank takes the waiting ones down", "[cli]") {
  const testing::Finished job = run_case(2, "child: one rank fails");
  INFO(job.output);
  CHECK(job.exit_code == 3);
  CHECK(count(job.output, "fulcrum: the file on this host is gone (rank 1 of 2)") == 1);
}
