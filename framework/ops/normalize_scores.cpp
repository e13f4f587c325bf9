#include "framework/autograd/tape.h"
#include "framework/ops/balance_loss.h"
#include "framework/ops/balance_loss_cuda.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/token_sums.h"

namespace fulcrum::ops {
namespace {

constexpr double kSumEps = 1e-20;

}  // namespace

Tensor normalize_scores(const Tensor& scores) {
  require_scores("normalize_scores", scores, 1, "");
  const std::int64_t n = scores.dim(0);
  const std::int64_t experts = scores.dim(1);
  Tensor y = Tensor::empty_like(scores);
  Tensor inverse = Tensor::empty({n}, scores.dtype(), scores.device());
  dispatch(
      "normalize_scores", scores,
      [&]<class T>() {
        const T* s = scores.data<T>();
        T* out = y.data<T>();
        T* scale = inverse.data<T>();
#pragma omp parallel for schedule(static) if (n * experts > kParallelScores)
        for (std::int64_t t = 0; t < n; ++t) {
          T sum = static_cast<T>(kSumEps);
#pragma omp simd reduction(+ : sum)
          for (std::int64_t i = 0; i < experts; ++i) sum += s[t * experts + i];
          scale[t] = T{1} / sum;
#pragma omp simd
          for (std::int64_t i = 0; i < experts; ++i) {
            out[t * experts + i] = s[t * experts + i] * scale[t];
          }
        }
      },
      [&] { cuda::normalize_scores(scores, y, inverse); });
  if (Tape* tape = Tape::recording({scores})) {
    tape->record("normalize_scores", {scores}, {&y}, [y = y.detach(), inverse](Backward& b) {
      const Tensor grad = b.grad(0);
      const Tensor ds = Tensor::empty_like(y);
      const std::int64_t n = y.dim(0);
      const std::int64_t experts = y.dim(1);
      dispatch(
          "normalize_scores", y,
          [&]<class T>() {
            const T* p = y.data<T>();
            const T* g = grad.data<T>();
            const T* scale = inverse.data<T>();
            T* out = ds.data<T>();
#pragma omp parallel for schedule(static) if (n * experts > kParallelScores)
            for (std::int64_t t = 0; t < n; ++t) {
              const std::int64_t row = t * experts;
              T mean = 0;
#pragma omp simd reduction(+ : mean)
              for (std::int64_t i = 0; i < experts; ++i) mean += p[row + i] * g[row + i];
#pragma omp simd
              for (std::int64_t i = 0; i < experts; ++i) {
                out[row + i] = (g[row + i] - mean) * scale[t];
              }
            }
          },
          [&] { cuda::normalize_scores_backward(y, inverse, grad, ds); });
      b.accumulate(0, ds);
    });
  }
  return y;
}

}  // namespace fulcrum::ops
