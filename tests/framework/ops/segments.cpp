#include "framework/ops/segments.h"

#include <limits>
#include <map>
#include <vector>

#include "framework/core/philox.h"
#include "tests/catch.h"

using namespace fulcrum;
using ops::Segments;

namespace {

bool matches(const std::vector<std::int64_t>& keys) {
  std::map<std::int64_t, std::vector<std::int64_t>> expected;
  for (std::size_t i = 0; i < keys.size(); ++i)
    expected[keys[i]].push_back(static_cast<std::int64_t>(i));
  const Segments s = ops::group_by_key(keys.data(), static_cast<std::int64_t>(keys.size()));
  if (s.count() != static_cast<std::int64_t>(expected.size())) return false;
  const auto offsets = s.offsets.to_vector<std::int64_t>();
  const auto positions = s.positions.to_vector<std::int64_t>();
  std::size_t k = 0;
  for (const auto& [key, where] : expected) {
    if (s.keys.data<std::int64_t>()[k] != key) return false;
    if (std::vector<std::int64_t>(positions.begin() + offsets[k],
                                  positions.begin() + offsets[k + 1]) != where)
      return false;
    ++k;
  }
  return offsets.back() == static_cast<std::int64_t>(keys.size());
}

std::vector<std::int64_t> random_keys(std::int64_t n, std::uint64_t bound, std::uint64_t seed) {
  const Random random(seed, 1);
  std::vector<std::int64_t> keys;
  for (std::int64_t i = 0; i < n; ++i) {
    keys.push_back(static_cast<std::int64_t>(random.below(static_cast<std::uint64_t>(i), bound)));
  }
  return keys;
}

}  // namespace

TEST_CASE("keys are grouped in ascending order, stably", "[unit][ops]") {
  CHECK(matches({}));
  CHECK(matches({7}));
  CHECK(matches({0, 0, 0}));
  CHECK(matches({5, 3, 5, 0, 3, 5}));
  for (const std::uint64_t bound : {2u, 37u, 2048u, 2049u, 4000000u}) {
    CAPTURE(bound);
    CHECK(matches(random_keys(1001, bound, bound)));
    CHECK(matches(random_keys(40013, bound, bound)));  // several threads
  }
}

TEST_CASE("keys and positions that exceed 64 bits together", "[unit][ops]") {
  constexpr auto kMax = std::numeric_limits<std::int64_t>::max();
  CHECK(matches({kMax, 0, kMax - 1, kMax, 1, std::int64_t{1} << 62}));
  auto keys = random_keys(20001, std::uint64_t{1} << 62, 3);
  keys[5] = keys[17000];
  CHECK(matches(keys));
}

TEST_CASE("negative keys are refused", "[unit][ops]") {
  const std::int64_t keys[] = {3, -1};
  CHECK_THROWS_AS(ops::group_by_key(keys, 2), ArgumentError);
}
