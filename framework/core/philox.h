#pragma once
// Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011). A number is a pure function of (seed, stream, index), so every mesh draws the
// same values for the same element and no rank ever needs a whole tensor.

#include <array>
#include <cstdint>
#include <string_view>

#include "framework/core/tensor.h"

namespace fulcrum {

// One block of four 32-bit words.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter,
                                    std::array<std::uint32_t, 2> key);

// Stream id of a name (64-bit FNV-1a).
std::uint64_t stream_of(std::string_view name);

// Sequence of random numbers of one stream; restartable at any index.
class Random {
 public:
  Random(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
  std::uint32_t bits(std::uint64_t index) const;
  double uniform(std::uint64_t index) const;  // in (0, 1)
  // Uniform in [0, bound).
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const;

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
};

// Fills t, which holds elements first..first+numel of a larger global tensor, with N(0, std²).
void fill_normal(const Tensor& t, double std, std::uint64_t seed, std::uint64_t stream,
                 std::int64_t first = 0);

}  // namespace fulcrum
