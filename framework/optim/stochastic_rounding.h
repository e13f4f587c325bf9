#pragma once
// Rounding of f32 to bf16 that is right on average: up with the probability of the fraction of a
// step at which x lies between its neighbours, down otherwise, so that E[rounded] = x.
//
// A moving average m ← β·m + (1 − β)·x needs it. Rounded to nearest, it stays where it is as long
// as (1 − β)·|x − m| is less than half a step, |m| / 512: near β = 1 for good.
//
// What is drawn is a function of (seed, tensor, step of the optimizer, index of the element in the
// whole tensor) alone: every division of a tensor over ranks, the CPU and CUDA round alike.
//
// Philox (core/philox.h) makes a 64-bit key of seed, tensor and step on the host. An element hashes
// its index under that key with two rounds of multiplication and shift: the 32-bit mixer lowbias32
// (Wellons, nullprogram.com/blog/2018/07/31, found by a search for little avalanche bias), about 12
// instructions, where Philox would take 60. It maps 2³² indices one to one, so that each half of
// the result, 16 bits for each of two moments, takes each value equally often. Rounding asks for no
// more than that, and that neighbours, the two halves, and an element's draws at different steps
// do not follow one another; tests hold it to this.

#include <bit>
#include <cstdint>
#include <string_view>

#include "framework/core/host_device.h"

namespace fulcrum {

// What one step draws for neighbouring elements of a tensor.
struct RoundingDraws {
  std::uint32_t key[2];
  std::uint64_t origin;  // index of element 0 in the whole tensor

  // 32 bits of element i, counted from the origin.
  FULCRUM_HOST_DEVICE std::uint32_t operator()(std::int64_t i) const {
    const std::uint64_t index = origin + static_cast<std::uint64_t>(i);
    std::uint32_t x = static_cast<std::uint32_t>(index) ^ key[0];
    x += static_cast<std::uint32_t>(index >> 32) * 0x9e3779b9u;
    x ^= x >> 16;
    x = x * 0x7feb352du + key[1];
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
  }
};

RoundingDraws rounding_draws(std::uint64_t seed, std::string_view tensor, std::int64_t step,
                             std::int64_t origin);

// The bits of a bf16 beside x: the one of larger magnitude for `random`, of 16 bits, out of 65536
// as often as the lower half of x says. Infinity and NaN stay what they are.
FULCRUM_HOST_DEVICE inline std::uint16_t round_stochastically(float x, std::uint32_t random) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t rounded = (bits + random) >> 16;
  const std::uint32_t quiet = (bits >> 16) | 0x0040u;
  return static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

}  // namespace fulcrum
