#include "framework/core/pcg64.h"

#include <vector>

#include "framework/core/error.h"
#include "tests/catch.h"

using fulcrum::Pcg64;

// All expected values come from NumPy 2.4: SeedSequence(s).generate_state(4, uint64),
// PCG64(s).random_raw(3) and default_rng(s).integers(0, high, size=5, dtype=int64).

TEST_CASE("the seed state and the raw words are NumPy's", "[unit][core]") {
  struct Golden {
    std::uint64_t seed;
    std::array<std::uint64_t, 4> state;
    std::array<std::uint64_t, 3> raw;
  };
  const Golden golden[] = {
      {0,
       {0xdb2cd7e7b0f478beu, 0xabf4641a2c71ba49u, 0x20c6ed6d9d7b8d41u, 0x2c4099de223c39d4u},
       {0xa30febcfd9c2825fu, 0x4510bdf882d9d721u, 0x0a7d3da94ecde8b8u}},
      {10007,
       {0x77d32a348ad70d07u, 0x993ed609b84a4fa5u, 0xd5f972dec8698e49u, 0x7d79ebaebcf148deu},
       {0xd2c3f84026661e33u, 0x0d4fb6969eb57435u, 0x62e6e1c58c3bd72bu}},
      {4294967296u,
       {0x50ff846cec53f444u, 0x7a4918dbe8278562u, 0x3bff9f6c362e2b19u, 0xbdb177539a0654e3u},
       {0xe3c5ebe285ac1625u, 0x8ea09968fe31dbccu, 0xcd084ff84d8de9beu}},
      {0xffffffffffffffffu,
       {0xaebca151928cad0du, 0x119c30448638dc7au, 0x1bbb155659e642a7u, 0xa76b11e3e8c4a8f6u},
       {0xae163a7a8c47568fu, 0xd86659f5f3382359u, 0x01e52b195bc2d24au}},
  };
  for (const Golden& g : golden) {
    CHECK(fulcrum::numpy_seed_state(g.seed) == g.state);
    Pcg64 generator(g.seed);
    for (const std::uint64_t word : g.raw) CHECK(generator.next64() == word);
  }
}

TEST_CASE("bounded integers are NumPy's", "[unit][core]") {
  struct Golden {
    std::uint64_t seed;
    std::int64_t high;
    std::vector<std::int64_t> values;
  };
  const Golden golden[] = {
      {0, 10, {8, 6, 5, 2, 3}},
      {7, 1, {0, 0, 0, 0, 0}},
      {1, 6, {2, 3, 4, 5, 0}},
      {0, 46589, {39629, 29675, 23813, 12569, 14341}},
      {3, 1000000007, {811504546, 85649167, 179440735, 236810508, 181364788}},
      // A quarter of the words is rejected.
      {4, 3221225472, {2340035962, 3037796348, 2839174983, 3029363474, 3125510440}},
      // Around 2³²: bounded halves, plain halves, whole words.
      {5, 4294967295, {2881021351, 3457461229, 97294836, 3470079268, 2013703615}},
      {5, 4294967296, {2881021352, 3457461230, 97294837, 3470079269, 2013703616}},
      {5, 4294967297, {3457461231, 3470079269, 2213306431, 1227507580, 231630603}},
      {11, 1099511640121, {141364434517, 548961821407, 661354445720, 31543898648, 162646451870}},
      // The bounds of the hash for 99,092 and 129,280 compressed ids.
      {10007,
       46539438283891,
       {38316048023122, 2419938046656, 17979836159674, 36993668729195, 19978571768672}},
      {150105,
       35672076256399,
       {11083119461512, 21469564163972, 20668069928128, 12624176531979, 34601600525661}},
      // A quarter of the 64-bit words is rejected.
      {9,
       4611686018427387904,
       {4013316086496403912, 1322710912993444104, 2781529890633132271, 3585743059053749950,
        3302311357493332641}},
      {9,
       4611686018427387905,
       {1322710912993444104, 3585743059053749950, 3302311357493332641, 4221445703212451547,
        3967865362280428162}},
      {9,
       9223372036854775807,
       {8026632172992807823, 2645421825986888207, 5563059781266264542, 7171486118107499899,
        6604622714986665281}},
  };
  for (const Golden& g : golden) {
    Pcg64 generator(g.seed);
    std::vector<std::int64_t> values;
    for (int i = 0; i < 5; ++i) values.push_back(generator.integer(g.high));
    CAPTURE(g.seed, g.high);
    CHECK(values == g.values);
  }
}

TEST_CASE("a bound below one is refused", "[unit][core]") {
  Pcg64 generator(0);
  CHECK_THROWS_AS(generator.integer(0), fulcrum::ArgumentError);
  CHECK_THROWS_AS(generator.integer(-5), fulcrum::ArgumentError);
}
