#include "framework/core/pcg64.h"

#include "framework/core/error.h"

namespace fulcrum {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::uint32_t kShift = 16;
constexpr Wide kMultiplier = (Wide{0x2360ed051fc65da4u} << 64) | 0x4385df649fccf645u;

// One of the two running hashes of SeedSequence.
struct Hash {
  std::uint32_t constant;
  std::uint32_t multiplier;

  std::uint32_t operator()(std::uint32_t value) {
    value ^= constant;
    constant *= multiplier;
    value *= constant;
    return value ^ (value >> kShift);
  }
};

std::uint32_t mix(std::uint32_t x, std::uint32_t y) {
  const std::uint32_t value = 0xca01f9ddu * x - 0x4973f715u * y;
  return value ^ (value >> kShift);
}

}  // namespace

std::array<std::uint64_t, 4> numpy_seed_state(std::uint64_t seed) {
  std::array<std::uint32_t, 4> pool = {static_cast<std::uint32_t>(seed),
                                       static_cast<std::uint32_t>(seed >> 32), 0, 0};
  Hash absorb{0x43b0d7e5u, 0x931e8875u};
  for (std::uint32_t& word : pool) word = absorb(word);
  for (std::size_t source = 0; source < pool.size(); ++source) {
    for (std::size_t target = 0; target < pool.size(); ++target) {
      if (source != target) pool[target] = mix(pool[target], absorb(pool[source]));
    }
  }
  Hash squeeze{0x8b51f9ddu, 0x58f38dedu};
  std::array<std::uint64_t, 4> state{};
  for (std::size_t i = 0; i < 2 * state.size(); ++i) {
    const std::uint64_t word = squeeze(pool[i % pool.size()]);
    state[i / 2] |= word << (32 * (i % 2));
  }
  return state;
}

Pcg64::Pcg64(std::uint64_t seed) {
  const auto words = numpy_seed_state(seed);
  const Wide start = (Wide{words[0]} << 64) | words[1];
  const Wide stream = (Wide{words[2]} << 64) | words[3];
  increment_ = (stream << 1) | 1u;
  state_ = increment_ + start;  // one step from zero, then the seed
  state_ = state_ * kMultiplier + increment_;
}

std::uint64_t Pcg64::next64() {
  state_ = state_ * kMultiplier + increment_;
  const auto folded = static_cast<std::uint64_t>(state_ >> 64) ^ static_cast<std::uint64_t>(state_);
  const auto rotation = static_cast<unsigned>(state_ >> 122);
  return (folded >> rotation) | (folded << ((64 - rotation) & 63u));
}

std::uint32_t Pcg64::next32() {
  if (has_half_) {
    has_half_ = false;
    return half_;
  }
  const std::uint64_t word = next64();
  has_half_ = true;
  half_ = static_cast<std::uint32_t>(word >> 32);
  return static_cast<std::uint32_t>(word);
}

std::int64_t Pcg64::integer(std::int64_t high) {
  FULCRUM_REQUIRE(high >= 1, "pcg64: the bound must be at least 1; got {}", high);
  const auto bound = static_cast<std::uint64_t>(high);
  if (bound == 1) return 0;
  if (bound == std::uint64_t{1} << 32) return next32();
  if (bound < std::uint64_t{1} << 32) {
    const std::uint64_t threshold = (std::uint64_t{1} << 32) % bound;
    std::uint64_t product = next32() * bound;
    while ((product & 0xffffffffu) < threshold) product = next32() * bound;
    return static_cast<std::int64_t>(product >> 32);
  }
  const std::uint64_t threshold = (0 - bound) % bound;
  Wide product = Wide{next64()} * bound;
  while (static_cast<std::uint64_t>(product) < threshold) product = Wide{next64()} * bound;
  return static_cast<std::int64_t>(product >> 64);
}

}  // namespace fulcrum
