#include <algorithm>
#include <cmath>

#include "framework/autograd/tape.h"
#include "framework/core/vector_math.h"
#include "framework/ops/balance_loss.h"
#include "framework/ops/balance_loss_cuda.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/token_sums.h"

namespace fulcrum::ops {

Tensor router_z_loss(const Tensor& logits, std::int64_t global_tokens, double weight) {
  constexpr const char* kOp = "router_z_loss";
  require_scores(kOp, logits, global_tokens, "global_tokens");
  const std::int64_t n = logits.dim(0);
  const std::int64_t experts = logits.dim(1);
  const double factor = weight / static_cast<double>(global_tokens);
  Tensor loss = Tensor::empty({1}, logits.dtype(), logits.device());
  Tensor lse = Tensor::empty({n}, logits.dtype(), logits.device());
  dispatch(
      kOp, logits,
      [&]<class T>() {
        const T* x = logits.data<T>();
        T* log_sum = lse.data<T>();
        const double squares = sum_tokens(n, experts, [&](std::int64_t t) {
          const T* row = x + t * experts;
          T top = row[0];
          for (std::int64_t i = 1; i < experts; ++i) top = std::max(top, row[i]);
          T sum = 0;
#pragma omp simd reduction(+ : sum)
          for (std::int64_t i = 0; i < experts; ++i) sum += fast_exp(row[i] - top);
          log_sum[t] = top + std::log(sum);
          return static_cast<double>(log_sum[t]) * log_sum[t];
        });
        loss.data<T>()[0] = static_cast<T>(factor * squares);
      },
      [&] { cuda::router_z_loss(logits, factor, lse, loss); });
  if (Tape* tape = Tape::recording({logits})) {
    tape->record(kOp, {logits}, {&loss}, [=, logits = logits.detach()](Backward& b) {
      const Tensor seed = b.grad(0);
      const auto [dx, add] = b.target(0);
      dispatch(
          kOp, logits,
          [&]<class T>() {
            const T* x = logits.data<T>();
            const T* log_sum = lse.data<T>();
            T* out = dx.data<T>();
            const T slope = static_cast<T>(2.0 * static_cast<double>(seed.data<T>()[0]) * factor);
#pragma omp parallel for schedule(static) if (n * experts > kParallelScores)
            for (std::int64_t t = 0; t < n; ++t) {
              const T g = slope * log_sum[t];
              T* row = out + t * experts;
#pragma omp simd
              for (std::int64_t i = 0; i < experts; ++i) {
                const T d = g * fast_exp(x[t * experts + i] - log_sum[t]);
                row[i] = add ? row[i] + d : d;
              }
            }
          },
          [&] { cuda::router_z_loss_backward(logits, lse, factor, seed, dx, add); });
    });
  }
  return loss;
}

}  // namespace fulcrum::ops
