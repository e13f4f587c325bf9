#include "framework/ops/balance_loss.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/ops/balance_loss_cuda.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/token_sums.h"
#include "framework/ops/top_k.h"

namespace fulcrum::ops {
namespace {

// Coefficients c [1, E] of a loss: each expert has factor times the sum of counts, i64 of each
// expert or of each group, over its group, one of equal runs of experts.
Tensor group_coefficients(const char* op, const Tensor& scores, const Tensor& counts,
                          std::int64_t groups, double factor) {
  const std::int64_t experts = scores.dim(1);
  const std::int64_t per_group = experts / groups;
  const std::int64_t summed = counts.numel() / groups;
  const Tensor c = Tensor::empty({1, experts}, scores.dtype(), scores.device());
  dispatch(
      op, scores,
      [&]<class T>() {
        const std::int64_t* count = counts.data<std::int64_t>();
        for (std::int64_t d = 0; d < groups; ++d) {
          const std::int64_t in_group =
              std::accumulate(count + d * summed, count + (d + 1) * summed, std::int64_t{0});
          std::fill_n(c.data<T>() + d * per_group, per_group,
                      static_cast<T>(factor * static_cast<double>(in_group)));
        }
      },
      [&] { cuda::group_coefficients(counts, groups, factor, c); });
  return c;
}

// Σ_t Σ_i c[t / rows_per_set, i] · s_ti, for coefficients c [sets, E] of the scores' dtype. All
// losses that are linear in the scores are of this form.
Tensor linear_loss(const char* op, const Tensor& scores, const Tensor& coefficients,
                   std::int64_t rows_per_set) {
  const std::int64_t n = scores.dim(0);
  const std::int64_t experts = scores.dim(1);
  Tensor loss = Tensor::empty({1}, scores.dtype(), scores.device());
  dispatch(
      op, scores,
      [&]<class T>() {
        const T* s = scores.data<T>();
        const T* c = coefficients.data<T>();
        loss.data<T>()[0] = static_cast<T>(sum_tokens(n, experts, [&](std::int64_t t) {
          const T* row = s + t * experts;
          const T* factor = c + t / rows_per_set * experts;
          T dot = 0;
#pragma omp simd reduction(+ : dot)
          for (std::int64_t i = 0; i < experts; ++i) dot += factor[i] * row[i];
          return static_cast<double>(dot);
        }));
      },
      [&] { cuda::linear_loss(scores, coefficients, rows_per_set, loss); });
  if (Tape* tape = Tape::recording({scores})) {
    tape->record(op, {scores}, {&loss}, [=](Backward& b) {
      const Tensor seed = b.grad(0);
      const auto [ds, add] = b.target(0);
      dispatch(
          op, coefficients,
          [&]<class T>() {
            const T* c = coefficients.data<T>();
            T* out = ds.data<T>();
            const T g = seed.data<T>()[0];
#pragma omp parallel for schedule(static) if (n * experts > kParallelScores)
            for (std::int64_t t = 0; t < n; ++t) {
              T* row = out + t * experts;
              const T* factor = c + t / rows_per_set * experts;
              if (add) {
#pragma omp simd
                for (std::int64_t i = 0; i < experts; ++i) row[i] += g * factor[i];
              } else {
#pragma omp simd
                for (std::int64_t i = 0; i < experts; ++i) row[i] = g * factor[i];
              }
            }
          },
          [&] { cuda::linear_loss_backward(coefficients, rows_per_set, seed, ds, add); });
    });
  }
  return loss;
}

void require_counts(const char* op, const Tensor& counts, std::int64_t size, const Tensor& scores) {
  FULCRUM_REQUIRE(counts.defined() && counts.dtype() == DType::i64 &&
                      counts.shape() == Shape{size} && counts.device() == scores.device(),
                  "{}: counts must be i64 [{}] on {}; got {} {} on {}", op, size, scores.device(),
                  counts.dtype(), counts.shape(), counts.device());
}

void require_groups(const char* op, std::int64_t experts, std::int64_t groups) {
  FULCRUM_REQUIRE(groups >= 1 && experts % groups == 0,
                  "{}: groups must divide the number of experts; got {} groups, {} experts", op,
                  groups, experts);
}

void require_top_k(const char* op, std::int64_t experts, std::int64_t top_k) {
  FULCRUM_REQUIRE(top_k >= 1 && top_k <= experts, "{}: top_k must lie in [1, {}]; got {}", op,
                  experts, top_k);
}

}  // namespace

Tensor expert_balance_loss(const Tensor& scores, const Tensor& counts, std::int64_t top_k,
                           std::int64_t global_tokens, double weight) {
  require_scores("expert_balance_loss", scores, global_tokens, "global_tokens");
  return device_balance_loss(scores, counts, top_k, scores.dim(1), global_tokens, weight);
}

Tensor device_balance_loss(const Tensor& scores, const Tensor& counts, std::int64_t top_k,
                           std::int64_t groups, std::int64_t global_tokens, double weight) {
  constexpr const char* kOp = "balance_loss";
  require_scores(kOp, scores, global_tokens, "global_tokens");
  const std::int64_t experts = scores.dim(1);
  require_counts(kOp, counts, experts, scores);
  require_groups(kOp, experts, groups);
  require_top_k(kOp, experts, top_k);
  const auto tokens = static_cast<double>(global_tokens);
  const double factor =
      weight * static_cast<double>(groups) / (static_cast<double>(top_k) * tokens * tokens);
  return linear_loss(kOp, scores, group_coefficients(kOp, scores, counts, groups, factor),
                     std::max<std::int64_t>(scores.dim(0), 1));
}

Tensor communication_balance_loss(const Tensor& scores, const Tensor& group_counts,
                                  std::int64_t top_groups, std::int64_t global_tokens,
                                  double weight) {
  constexpr const char* kOp = "communication_balance_loss";
  require_scores(kOp, scores, global_tokens, "global_tokens");
  FULCRUM_REQUIRE(group_counts.defined() && group_counts.rank() == 1,
                  "{}: group_counts must have one dimension; got {}", kOp, group_counts.shape());
  const std::int64_t groups = group_counts.dim(0);
  require_counts(kOp, group_counts, groups, scores);
  require_groups(kOp, scores.dim(1), groups);
  FULCRUM_REQUIRE(top_groups >= 1 && top_groups <= groups,
                  "{}: top_groups must lie in [1, {}]; got {}", kOp, groups, top_groups);
  const auto tokens = static_cast<double>(global_tokens);
  const double factor =
      weight * static_cast<double>(groups) / (static_cast<double>(top_groups) * tokens * tokens);
  return linear_loss(kOp, scores, group_coefficients(kOp, scores, group_counts, groups, factor),
                     std::max<std::int64_t>(scores.dim(0), 1));
}

Tensor group_token_counts(const Tensor& experts, std::int64_t count, std::int64_t groups) {
  constexpr const char* kOp = "group_token_counts";
  FULCRUM_REQUIRE(experts.rank() == 2 && experts.dtype() == DType::i32,
                  "{}: experts must be i32 [n, k]; got {} {}", kOp, experts.dtype(),
                  experts.shape());
  require_groups(kOp, count, groups);
  if constexpr (kBuiltWithCuda) {
    if (experts.device().is_cuda()) {
      const Tensor counts = Tensor::empty({groups}, DType::i64, experts.device());
      cuda::group_token_counts(experts, count / groups, counts);
      return counts;
    }
  }
  const std::int64_t n = experts.dim(0);
  const std::int64_t k = experts.dim(1);
  const std::int32_t* id = experts.data<std::int32_t>();
  Tensor counts = Tensor::zeros({groups}, DType::i64);
  std::int64_t* total = counts.data<std::int64_t>();
  std::vector<std::int64_t> last(static_cast<std::size_t>(groups),
                                 -1);  // last token seen by a group
  for (std::int64_t i = 0; i < n * k; ++i) {
    FULCRUM_REQUIRE(id[i] >= -1 && id[i] < count,
                    "{}: experts lie in [0, {}) or are -1; got {} at token {}, slot {}", kOp, count,
                    id[i], i / k, i % k);
    if (id[i] < 0) continue;
    const std::int64_t group = id[i] / (count / groups);
    if (last[group] == i / k) continue;
    last[group] = i / k;
    ++total[group];
  }
  return counts;
}

Tensor sequence_balance_loss(const Tensor& scores, std::int64_t sequence_length, std::int64_t top_k,
                             bool normalize, std::int64_t global_sequences, double weight) {
  constexpr const char* kOp = "sequence_balance_loss";
  require_scores(kOp, scores, global_sequences, "global_sequences");
  const std::int64_t n = scores.dim(0);
  const std::int64_t experts = scores.dim(1);
  require_top_k(kOp, experts, top_k);
  FULCRUM_REQUIRE(sequence_length >= 1 && n % sequence_length == 0,
                  "{}: scores must hold whole sequences; got {} with sequence_length {}", kOp,
                  scores.shape(), sequence_length);
  const std::int64_t sequences = n / sequence_length;
  // f_i / T summed over one sequence gives E / (k T²) · count.
  const double factor =
      weight * static_cast<double>(experts) /
      (static_cast<double>(top_k) * static_cast<double>(sequence_length) *
       static_cast<double>(sequence_length) * static_cast<double>(global_sequences));
  const Tensor c = Tensor::empty({sequences, experts}, scores.dtype(), scores.device());
  dispatch(
      kOp, scores,
      [&]<class T>() {
        c.zero();
        const T* s = scores.data<T>();
        T* out = c.data<T>();
#pragma omp parallel if (n * experts > kParallelScores)
        {
          std::vector<T> best(top_k);
          std::vector<std::int32_t> ids(top_k);
#pragma omp for schedule(static)
          for (std::int64_t q = 0; q < sequences; ++q) {
            T* row = out + q * experts;
            for (std::int64_t t = q * sequence_length; t < (q + 1) * sequence_length; ++t) {
              TopK<T> top(top_k, best.data(), ids.data());
              for (std::int64_t e = 0; e < experts; ++e) top.offer(s[t * experts + e], e);
              for (const std::int32_t e : ids) row[e] += T{1};
            }
            for (std::int64_t e = 0; e < experts; ++e) row[e] *= static_cast<T>(factor);
          }
        }
      },
      [&] { cuda::sequence_coefficients(scores, sequence_length, top_k, factor, c); });
  return linear_loss(kOp, normalize ? normalize_scores(scores) : scores, c, sequence_length);
}

}  // namespace fulcrum::ops
