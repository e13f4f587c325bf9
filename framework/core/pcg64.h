#pragma once
// NumPy's default generator, bit for bit: numpy.random.default_rng(seed).integers(0, high,
// dtype=int64).
//
// The hash of a DSE memory draws its multipliers from it (framework/ops/ngram.h), so tables trained
// elsewhere keep their rows. Everything else in Fulcrum uses framework/core/philox.h.
//
// Three published parts: SeedSequence (O'Neill's seed_seq_fe with a pool of four words) turns the
// seed into a state and a stream; PCG64 XSL-RR 128/64 (O'Neill 2014, "PCG: A family of simple fast
// space-efficient statistically good algorithms for random number generation") gives 64-bit words;
// Lemire 2019 ("Fast random integer generation in an interval") bounds them.

#include <array>
#include <cstdint>

namespace fulcrum {

// SeedSequence(seed).generate_state(4, uint64)
std::array<std::uint64_t, 4> numpy_seed_state(std::uint64_t seed);

class Pcg64 {
 public:
  explicit Pcg64(std::uint64_t seed);

  // The next raw word.
  std::uint64_t next64();
  // The lower, then the upper half of a raw word; the half that waits is kept across calls of
  // next64, as in NumPy.
  std::uint32_t next32();
  // Uniform in [0, high), high ≥ 1. Ranges of at most 2³² values consume next32, larger ones
  // next64; a single value consumes nothing.
  std::int64_t integer(std::int64_t high);

 private:
  __extension__ using Word = unsigned __int128;
  Word state_ = 0;
  Word increment_ = 0;
  bool has_half_ = false;
  std::uint32_t half_ = 0;
};

}  // namespace fulcrum
