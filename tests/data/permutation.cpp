#include "data/permutation.h"

#include <vector>

#include "framework/core/error.h"
#include "tests/catch.h"

using namespace fulcrum;
using fulcrum::data::Permutation;

TEST_CASE("permutation is a bijection for every size", "[unit][data]") {
  for (std::int64_t size = 1; size <= 300; ++size) {
    const Permutation order(size, 7, 3);
    std::vector<char> seen(static_cast<std::size_t>(size));
    for (std::int64_t i = 0; i < size; ++i) {
      const std::int64_t at = order(i);
      REQUIRE((at >= 0 && at < size));
      REQUIRE(seen[static_cast<std::size_t>(at)] == 0);
      seen[static_cast<std::size_t>(at)] = 1;
    }
  }
}

TEST_CASE("permutation scatters, and seeds and streams differ", "[unit][data]") {
  constexpr std::int64_t kSize = 10000;
  const Permutation a(kSize, 1, 0), b(kSize, 2, 0), c(kSize, 1, 1);
  std::int64_t fixed = 0, ascending = 0, same_seed = 0, same_stream = 0;
  std::vector<std::int64_t> first_half(2);
  for (std::int64_t i = 0; i < kSize; ++i) {
    fixed += a(i) == i;
    same_seed += a(i) == b(i);
    same_stream += a(i) == c(i);
    if (i > 0) ascending += a(i) > a(i - 1);
    if (i < kSize / 2) ++first_half[a(i) < kSize / 2 ? 0 : 1];
  }
  // A random permutation has one fixed point on average, and ascends in half of its steps
  // (deviation 29).
  CHECK(fixed < 8);
  CHECK(same_seed < 8);
  CHECK(same_stream < 8);
  CHECK(std::abs(ascending - kSize / 2) < 150);
  CHECK(std::abs(first_half[0] - kSize / 4) < 150);
}

TEST_CASE("permutation of huge sizes", "[unit][data]") {
  const std::int64_t size = (std::int64_t{1} << 40) + 12345;
  const Permutation order(size, 1, 2);
  CHECK(order(0) != order(1));
  CHECK((order(size - 1) >= 0 && order(size - 1) < size));
  CHECK_THROWS_AS(order(size), InternalError);
  CHECK_THROWS_AS(Permutation(0, 1, 2), ArgumentError);
}
