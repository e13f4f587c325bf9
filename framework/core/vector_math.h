#pragma once
// Exponential functions that the compiler can vectorise: branch-free, inline, no table. For use
// inside `#pragma omp simd` loops. float: relative error below 2e-7 wherever the result is a normal
// number; double: std::exp.

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace fulcrum {

// exp(x). Results below the smallest normal float are zero (denormals would cost a slow path in
// hardware); above the largest they are infinite; NaN stays NaN.
template <class T>
inline T fast_exp(T x) {
  if constexpr (!std::is_same_v<T, float>) {
    return std::exp(x);
  } else {
    constexpr float kLowest = -87.33654f;  // log of the smallest normal float
    constexpr float kHighest = 88.72283f;  // log of the largest float
    constexpr float kRound =
        12582912.0f;  // 1.5 · 2^23: adding it rounds to an integer, kept in the low bits
    constexpr float kLog2e = 1.44269504f;
    constexpr float kLn2High = 0.693359375f;  // few bits, so that n · kLn2High is exact
    constexpr float kLn2Low = -2.12194440e-4f;

    // x = n ln 2 + r with |r| <= ln 2 / 2; the polynomial approximates (exp(r) − 1 − r) / r²
    // (Cephes expf).
    const float shifted = x * kLog2e + kRound;
    const float n = shifted - kRound;
    const float r = (x - n * kLn2High) - n * kLn2Low;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    // Multiplies by 2^n in the exponent field.
    const std::uint32_t bits =
        std::bit_cast<std::uint32_t>(p) + (std::bit_cast<std::uint32_t>(shifted) << 23);
    const float y = x < kLowest ? 0.0f : std::bit_cast<float>(bits);
    return x <= kHighest ? y : x * std::numeric_limits<float>::infinity();
  }
}

// 1 / (1 + exp(−x))
template <class T>
inline T fast_sigmoid(T x) {
  return T(1) / (T(1) + fast_exp(-x));
}

// x · sigmoid(x). At −∞ it is NaN, as x · 0 is.
template <class T>
inline T fast_silu(T x) {
  return x * fast_sigmoid(x);
}

}  // namespace fulcrum
