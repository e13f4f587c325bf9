#pragma once
// Inputs for tests of routing.

#include <algorithm>
#include <numeric>
#include <vector>

#include "framework/core/philox.h"
#include "tests/gradient_check.h"

namespace fulcrum::testing {

// f64 [n, experts] in [-2, 2]: every row holds the same evenly spaced numbers in random order, so
// that rounding changes no choice.
inline Tensor separated_logits(std::int64_t n, std::int64_t experts, std::uint64_t seed) {
  const Tensor keys = random({n, experts}, seed);
  Tensor logits = Tensor::empty({n, experts}, DType::f64);
  std::vector<std::int64_t> order(static_cast<std::size_t>(experts));
  for (std::int64_t t = 0; t < n; ++t) {
    std::iota(order.begin(), order.end(), 0);
    const double* key = keys.data<double>() + t * experts;
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return key[a] < key[b]; });
    for (std::int64_t i = 0; i < experts; ++i) {
      logits.data<double>()[t * experts + order[static_cast<std::size_t>(i)]] =
          4.0 * static_cast<double>(i) / static_cast<double>(experts) - 2.0;
    }
  }
  return logits;
}

// f64 of a few values only: many are equal.
inline Tensor coarse_logits(std::int64_t n, std::int64_t experts, std::uint64_t seed) {
  Tensor logits = Tensor::empty({n, experts}, DType::f64);
  const Random draw(seed, 2);
  for (std::int64_t i = 0; i < logits.numel(); ++i) {
    logits.data<double>()[i] = 0.5 * static_cast<double>(draw.below(i, 5)) - 1.0;
  }
  return logits;
}

// i32 [n, k] in [0, experts), k different ones a token, skewed towards the low ones; a share of the
// slots is dropped (−1).
inline Tensor random_experts(std::int64_t n, std::int64_t k, std::int64_t experts, double dropped,
                             std::uint64_t seed) {
  Tensor ids = Tensor::empty({n, k}, DType::i32);
  const Random draw(seed, 3);
  for (std::int64_t t = 0; t < n; ++t) {
    std::int32_t* row = ids.data<std::int32_t>() + t * k;
    for (std::int64_t j = 0; j < k; ++j) {
      const double u = draw.uniform(2 * (t * k + j));
      auto id = static_cast<std::int32_t>(u * u * static_cast<double>(experts));
      while (std::find(row, row + j, id) != row + j) {
        id = static_cast<std::int32_t>((id + 1) % experts);
      }
      row[j] = id;
    }
    for (std::int64_t j = 0; j < k; ++j) {
      if (draw.uniform(2 * (t * k + j) + 1) < dropped) row[j] = -1;
    }
  }
  return ids;
}

}  // namespace fulcrum::testing
