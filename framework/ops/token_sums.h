#pragma once
// What the losses over tokens share on the CPU. Internal to them.

#include <algorithm>
#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum::ops {

inline constexpr std::int64_t kParallelScores = 16384;  // scores from which threads pay

// Σ_t f(t) over n rows of the given width. Rows of one block are summed together, so that sums do
// not depend on the number of threads.
template <class Fn>
double sum_tokens(std::int64_t n, std::int64_t width, const Fn& f) {
  constexpr std::int64_t kBlock = 256;
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> partial(static_cast<std::size_t>(blocks));
#pragma omp parallel for schedule(static) if (n * width > kParallelScores)
  for (std::int64_t b = 0; b < blocks; ++b) {
    double s = 0.0;
    for (std::int64_t t = b * kBlock; t < std::min(n, (b + 1) * kBlock); ++t) s += f(t);
    partial[b] = s;
  }
  double total = 0.0;
  for (const double p : partial) total += p;
  return total;
}

inline void require_scores(const char* op, const Tensor& scores, std::int64_t global,
                           const char* what) {
  FULCRUM_REQUIRE(scores.rank() == 2 && scores.dim(1) >= 1, "{}: expected [n, experts]; got {}", op,
                  scores.shape());
  FULCRUM_REQUIRE(global >= 1, "{}: {} must be at least 1; got {}", op, what, global);
}

}  // namespace fulcrum::ops
