#pragma once
// The draw of sequence_share.h, as host and device compute it. Internal to it.
//
// A sequence's content is the sum over its positions of a hash of (position, id), which any number
// of threads can form in any order; hashed once more it is a uniform number.

#include <cstdint>

namespace fulcrum::ops {

// Finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
// OOPSLA 2014): a bijection of 64 bits.
constexpr std::uint64_t mix_bits(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

constexpr std::uint64_t content_of(std::int64_t position, std::int32_t id) {
  return mix_bits((static_cast<std::uint64_t>(position) << 32 | static_cast<std::uint32_t>(id)) +
                  0x9e3779b97f4a7c15ull);
}

// threshold: draw_threshold of the share.
constexpr bool is_drawn(std::uint64_t content, std::uint64_t threshold) {
  return mix_bits(content) >> 11 < threshold;
}

constexpr std::uint64_t draw_threshold(double share) {
  return static_cast<std::uint64_t>(share * 0x1p53);
}

}  // namespace fulcrum::ops
