#include "framework/optim/stochastic_rounding.h"

#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "framework/core/dtype.h"
#include "tests/catch.h"

using namespace fulcrum;

namespace {

float rounded(float x, std::uint32_t random) {
  BFloat16 result;
  result.bits = round_stochastically(x, random);
  return static_cast<float>(result);
}

// In (−0.5, 0.5).
double centred(std::uint32_t half) { return (half + 0.5) * 0x1p-16 - 0.5; }

// Of `pairs`, in standard deviations of what independent uniform values give.
template <class Pair>
double correlation(int pairs, Pair&& pair) {
  double sum = 0.0;
  for (int i = 0; i < pairs; ++i) {
    const auto [a, b] = pair(i);
    sum += centred(a) * centred(b);
  }
  return sum * 12.0 / std::sqrt(pairs);
}

}  // namespace

TEST_CASE("stochastic rounding is right on average", "[unit][optim]") {
  for (const float x :
       {1.00390625f, 1.0001f, -0.3f, 3.14159f, 1e-12f, -7.7e-40f, 65504.3f, -2.5e38f}) {
    INFO(x);
    const float step = std::abs(rounded(x, 0xffff) - rounded(x, 0));
    double sum = 0.0;
    for (std::uint32_t random = 0; random < 65536; ++random) {
      const float y = rounded(x, random);
      REQUIRE(std::abs(y - x) < step);
      sum += y;
    }
    CHECK(sum / 65536.0 == x);
  }
}

TEST_CASE("stochastic rounding leaves what bf16 holds", "[unit][optim]") {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float x : {0.0f, 1.0f, -0.15625f, 0x1p-130f, infinity, -infinity}) {
    INFO(x);
    CHECK(rounded(x, 0) == x);
    CHECK(rounded(x, 0xffff) == x);
  }
  // With all bits of the mantissa, too: the NaN of CUDA's operators.
  for (const std::uint32_t bits : {0x7fc00000u, 0x7fffffffu, 0xffffffffu, 0x7f800001u}) {
    CHECK(std::isnan(rounded(std::bit_cast<float>(bits), 0)));
    CHECK(std::isnan(rounded(std::bit_cast<float>(bits), 0xffff)));
  }
}

TEST_CASE("draws of roundings are uniform and do not follow one another", "[unit][optim]") {
  constexpr int kElements = 1 << 16;
  const auto first = rounding_draws(3, "blocks.0.moe.down.weight", 7, 0);
  const auto next = rounding_draws(3, "blocks.0.moe.down.weight", 8, 0);
  const auto low = [](std::uint32_t x) { return x & 0xffffu; };
  const auto high = [](std::uint32_t x) { return x >> 16; };
  for (const auto& half : {+low, +high}) {
    std::array<int, 256> counts{};
    for (int i = 0; i < kElements; ++i) ++counts[half(first(i)) / 256];
    double chi_square = 0.0;  // of 255 degrees of freedom: a standard deviation is 22.6
    for (const int n : counts) chi_square += (n - 256.0) * (n - 256.0) / 256.0;
    CHECK(std::abs(chi_square - 255.0) < 5 * 22.6);
    for (const int distance : {1, 2, 3, 4, 32, 128, 2048, 2816}) {
      INFO("elements at a distance of " << distance);
      CHECK(std::abs(correlation(kElements, [&](int i) {
              return std::pair{half(first(i)), half(first(i + distance))};
            })) < 5);
    }
    CHECK(std::abs(correlation(kElements, [&](int i) {
            return std::pair{half(first(i)), half(next(i))};
          })) < 5);
  }
  CHECK(std::abs(correlation(kElements, [&](int i) {
          return std::pair{low(first(i)), high(first(i))};
        })) < 5);
  // Of one element, from step to step.
  std::vector<std::uint32_t> steps;
  for (int t = 0; t <= 4096; ++t) steps.push_back(rounding_draws(3, "head", t, 0)(12345));
  for (const auto& half : {+low, +high}) {
    CHECK(std::abs(correlation(4096, [&](int t) {
            return std::pair{half(steps[t]), half(steps[t + 1])};
          })) < 5);
    double sum = 0.0;
    for (const std::uint32_t x : steps) sum += centred(half(x));
    CHECK(std::abs(sum) < 5 * std::sqrt(4097 / 12.0));
  }
}

TEST_CASE("draws belong to seed, tensor, step and element of the whole", "[unit][optim]") {
  const auto draws = rounding_draws(3, "head", 7, 0);
  for (const std::int64_t origin : {std::int64_t{100}, (std::int64_t{1} << 32) - 2}) {
    const auto part = rounding_draws(3, "head", 7, origin);
    for (int i = 0; i < 5; ++i) CHECK(part(i) == draws(origin + i));
  }
  const auto differs = [&](const RoundingDraws& other) {
    int equal = 0;
    for (int i = 0; i < 1000; ++i) equal += other(i) == draws(i);
    return equal < 3;
  };
  CHECK(differs(rounding_draws(4, "head", 7, 0)));
  CHECK(differs(rounding_draws(3, "embedding", 7, 0)));
  CHECK(differs(rounding_draws(3, "head", 8, 0)));
  CHECK(differs(rounding_draws(3, "head", 7, 1)));
  CHECK(differs(rounding_draws(3, "head", 7, std::int64_t{1} << 32)));
}
