#pragma once
// The orthogonal factor of a matrix by quintic Newton–Schulz iterations, without a decomposition.

#include <cstdint>

#include "framework/core/tensor.h"

namespace fulcrum {

// Coefficients of the iteration.
inline constexpr double kNewtonSchulzA = 3.4445;
inline constexpr double kNewtonSchulzB = -4.7750;
inline constexpr double kNewtonSchulzC = 2.0315;

// Scratch elements that orthogonalize needs.
std::int64_t newton_schulz_scratch(std::int64_t rows, std::int64_t cols);

// Replaces x = U Σ Vᵀ [rows, cols] by about U Vᵀ: x is divided by its Frobenius norm, then
//   x ← a·x + (b·A + c·A²)·x,  A = x·xᵀ,  (a, b, c) = (3.4445, −4.7750, 2.0315)
// (Jordan et al. 2024) takes every singular value that is not tiny into about [0.7, 1.2] within
// five iterations. A zero matrix stays zero. Follows ops::matmul_precision(). T is float or double.
template <class T>
void orthogonalize(T* x, std::int64_t rows, std::int64_t cols, std::int64_t iterations, T* scratch);

}  // namespace fulcrum
