#include "framework/ops/segments.h"

#include <omp.h>

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

namespace fulcrum::ops {
namespace {

__extension__ using Wide = unsigned __int128;

constexpr std::int64_t kParallel = 16384;  // keys from which threads pay
constexpr int kDigitBits = 11;

int bits_of(std::int64_t largest) { return std::bit_width(static_cast<std::uint64_t>(largest)); }

std::int64_t blocks_for(std::int64_t n) { return n > kParallel ? omp_get_max_threads() : 1; }

// Sorts by the bits shift..shift + digit_bits, keeping the order of equal digits. Every block of
// the input counts its digits and then scatters to places of its own.
template <class Word>
void radix_pass(const Word* from, Word* to, std::int64_t n, int shift, int digit_bits) {
  const std::int64_t digits = std::int64_t{1} << digit_bits;
  const auto mask = static_cast<std::uint64_t>(digits - 1);
  const std::int64_t blocks = blocks_for(n);
  std::vector<std::int64_t> places(static_cast<std::size_t>(blocks * digits), 0);
  const auto digit_of = [=](Word word) { return static_cast<std::uint64_t>(word >> shift) & mask; };
#pragma omp parallel for schedule(static, 1) num_threads(blocks) if (blocks > 1)
  for (std::int64_t b = 0; b < blocks; ++b) {
    std::int64_t* count = places.data() + b * digits;
    for (std::int64_t i = n * b / blocks; i < n * (b + 1) / blocks; ++i) ++count[digit_of(from[i])];
  }
  std::int64_t place = 0;
  for (std::int64_t d = 0; d < digits; ++d) {
    for (std::int64_t b = 0; b < blocks; ++b) {
      std::int64_t& slot = places[static_cast<std::size_t>(b * digits + d)];
      place += std::exchange(slot, place);
    }
  }
#pragma omp parallel for schedule(static, 1) num_threads(blocks) if (blocks > 1)
  for (std::int64_t b = 0; b < blocks; ++b) {
    std::int64_t* next = places.data() + b * digits;
    for (std::int64_t i = n * b / blocks; i < n * (b + 1) / blocks; ++i) {
      to[next[digit_of(from[i])]++] = from[i];
    }
  }
}

// Writes keys, offsets and positions from sorted words key · 2^position_bits + position.
template <class Word>
Segments read_segments(const Word* sorted, std::int64_t n, int position_bits) {
  const std::int64_t blocks = blocks_for(n);
  const auto key_of = [=](std::int64_t i) {
    return static_cast<std::int64_t>(sorted[i] >> position_bits);
  };
  const auto begins = [&](std::int64_t i) { return i == 0 || key_of(i) != key_of(i - 1); };
  std::vector<std::int64_t> first(static_cast<std::size_t>(blocks + 1), 0);
#pragma omp parallel for schedule(static, 1) num_threads(blocks) if (blocks > 1)
  for (std::int64_t b = 0; b < blocks; ++b) {
    std::int64_t count = 0;
    for (std::int64_t i = n * b / blocks; i < n * (b + 1) / blocks; ++i) count += begins(i);
    first[static_cast<std::size_t>(b + 1)] = count;
  }
  for (std::size_t b = 1; b < first.size(); ++b) first[b] += first[b - 1];

  Segments segments{Tensor::empty({first.back()}, DType::i64),
                    Tensor::empty({first.back() + 1}, DType::i64), Tensor::empty({n}, DType::i64)};
  std::int64_t* keys = segments.keys.data<std::int64_t>();
  std::int64_t* offsets = segments.offsets.data<std::int64_t>();
  std::int64_t* positions = segments.positions.data<std::int64_t>();
  const Word mask = (Word{1} << position_bits) - 1;
#pragma omp parallel for schedule(static, 1) num_threads(blocks) if (blocks > 1)
  for (std::int64_t b = 0; b < blocks; ++b) {
    std::int64_t s = first[static_cast<std::size_t>(b)];
    for (std::int64_t i = n * b / blocks; i < n * (b + 1) / blocks; ++i) {
      positions[i] = static_cast<std::int64_t>(sorted[i] & mask);
      if (!begins(i)) continue;
      keys[s] = key_of(i);
      offsets[s++] = i;
    }
  }
  offsets[first.back()] = n;
  return segments;
}

template <class Word>
Segments group(const std::int64_t* keys, std::int64_t n, int key_bits, int position_bits) {
  constexpr std::int64_t kWords = sizeof(Word) / sizeof(std::int64_t);
  const Tensor scratch[2] = {Tensor::empty({n * kWords}, DType::i64),
                             Tensor::empty({n * kWords}, DType::i64)};
  Word* from = static_cast<Word*>(scratch[0].raw());
  Word* to = static_cast<Word*>(scratch[1].raw());
#pragma omp parallel for simd schedule(static) if (n > kParallel)
  for (std::int64_t i = 0; i < n; ++i) {
    from[i] = (static_cast<Word>(keys[i]) << position_bits) | static_cast<Word>(i);
  }
  const int passes = (key_bits + kDigitBits - 1) / kDigitBits;
  for (int pass = 0; pass < passes; ++pass) {
    const int begin = key_bits * pass / passes;
    const int end = key_bits * (pass + 1) / passes;
    radix_pass(from, to, n, position_bits + begin, end - begin);
    std::swap(from, to);
  }
  return read_segments(from, n, position_bits);
}

}  // namespace

KeyRange range_of(const std::int64_t* keys, std::int64_t n) {
  if (n == 0) return {};
  std::int64_t least = keys[0];
  std::int64_t most = keys[0];
#pragma omp parallel for simd reduction(min                        \
                                        : least) reduction(max     \
                                                           : most) \
    schedule(static) if (n > kParallel)
  for (std::int64_t i = 0; i < n; ++i) {
    least = std::min(least, keys[i]);
    most = std::max(most, keys[i]);
  }
  return {least, most};
}

Segments group_by_key(const std::int64_t* keys, std::int64_t n) {
  const KeyRange range = range_of(keys, n);
  FULCRUM_REQUIRE(range.least >= 0, "group_by_key: keys must not be negative; got {}", range.least);
  const int key_bits = bits_of(std::max<std::int64_t>(range.most, 0));
  const int position_bits = bits_of(std::max<std::int64_t>(n - 1, 0));
  if (key_bits + position_bits <= 64 && position_bits < 64) {
    return group<std::uint64_t>(keys, n, key_bits, position_bits);
  }
  return group<Wide>(keys, n, key_bits, position_bits);
}

}  // namespace fulcrum::ops
