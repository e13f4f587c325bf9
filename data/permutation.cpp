#include "data/permutation.h"

#include "framework/core/error.h"
#include "framework/core/philox.h"

namespace fulcrum::data {
namespace {
constexpr std::uint32_t kRounds = 6;
}

Permutation::Permutation(std::int64_t size, std::uint64_t seed, std::uint64_t stream)
    : size_(size), seed_(seed), stream_(stream) {
  FULCRUM_REQUIRE(size > 0 && size <= (std::int64_t{1} << 62),
                  "permutation: size must lie in [1, 2^62]; got {}", size);
  while ((std::int64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
}

std::uint64_t Permutation::encrypt(std::uint64_t value) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = value >> half_bits_;
  std::uint64_t right = value & mask;
  for (std::uint32_t round = 0; round < kRounds; ++round) {
    const auto word =
        philox({static_cast<std::uint32_t>(right), round, static_cast<std::uint32_t>(stream_),
                static_cast<std::uint32_t>(stream_ >> 32)},
               {static_cast<std::uint32_t>(seed_), static_cast<std::uint32_t>(seed_ >> 32)})[0];
    const std::uint64_t next = left ^ (word & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

std::int64_t Permutation::operator()(std::int64_t index) const {
  FULCRUM_CHECK(index >= 0 && index < size_, "index {} of {}", index, size_);
  auto value = static_cast<std::uint64_t>(index);
  do {
    value = encrypt(value);
  } while (value >= static_cast<std::uint64_t>(size_));
  return static_cast<std::int64_t>(value);
}

}  // namespace fulcrum::data
