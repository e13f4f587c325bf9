#include "parallel/threads.h"

#include <omp.h>

#include "parallel/session.h"
#include "tests/catch.h"
#include "tests/parallel/world.h"

using namespace fulcrum::parallel;

TEST_CASE("threads of a rank are its share of the host", "[unit][parallel]") {
  CHECK(threads_of({8, 8, 2}) == 4);
  CHECK(threads_of({8, 1, 2}) == 1);
  CHECK(threads_of({2, 2, 4}) == 1);
  CHECK(binding_advice({8, 8, 2}).empty());
  CHECK(binding_advice({8, 4, 2}).empty());
  CHECK(binding_advice({2, 1, 4}).empty());
  CHECK(binding_advice({8, 1, 2}).find("--bind-to none") != std::string::npos);
}

TEST_CASE("cpu lists", "[unit][parallel]") {
  CHECK(parse_cpu_list("0-3,8\n") == std::set<int>{0, 1, 2, 3, 8});
  CHECK(parse_cpu_list("\t5") == std::set<int>{5});
  CHECK(parse_cpu_list("").empty());
  CHECK(parse_cpu_list("none").empty());
}

TEST_CASE("the number of threads asked for is used", "[mpi]") {
  fulcrum::testing::world();
  Session session;
  const int before = omp_get_max_threads();
  CHECK(session.set_threads(3) == 3);
  CHECK(omp_get_max_threads() == 3);
  CHECK(session.set_threads(0) >= 1);
  session.set_threads(before);
}

TEST_CASE("a nested session leaves MPI alone", "[mpi]") {
  const int size = fulcrum::testing::world().size();
  {
    const Session inner;
    CHECK(inner.size() == size);
    CHECK(inner.local_size() >= 1);
    CHECK(inner.local_rank() < inner.local_size());
  }
  CHECK(fulcrum::testing::world().sum(std::int64_t{1}) == size);
}
