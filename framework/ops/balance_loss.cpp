#include "framework/ops/balance_loss.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/core/vector_math.h"
#include "framework/ops/top_k.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 16384;  // scores from which threads pay
constexpr double kSumEps = 1e-20;
constexpr std::int64_t kRowBlock =
    256;  // rows summed together, for sums independent of the thread count

// Σ_t f(t) over n rows of the given width.
template <class Fn>
double sum_rows(std::int64_t n, std::int64_t width, const Fn& f) {
  const std::int64_t blocks = (n + kRowBlock - 1) / kRowBlock;
  std::vector<double> partial(static_cast<std::size_t>(blocks));
#pragma omp parallel for schedule(static) if (n * width > kParallel)
  for (std::int64_t b = 0; b < blocks; ++b) {
    double s = 0.0;
    for (std::int64_t t = b * kRowBlock; t < std::min(n, (b + 1) * kRowBlock); ++t) s += f(t);
    partial[b] = s;
  }
  double total = 0.0;
  for (const double p : partial) total += p;
  return total;
}

double scalar(const Tensor& t) {
  return t.dtype() == DType::f64 ? t.data<double>()[0] : static_cast<double>(t.data<float>()[0]);
}

std::vector<double> to_doubles(const Tensor& counts) {
  if (counts.dtype() == DType::f64) return counts.to_vector<double>();
  const std::vector<std::int64_t> integers = counts.to_vector<std::int64_t>();
  return {integers.begin(), integers.end()};
}

// Σ_t Σ_i c[t / rows_per_set, i] · s_ti, for coefficients c [sets, E] of the scores' dtype. All
// losses that are linear in the scores are of this form.
Tensor linear_loss(const char* op, const Tensor& scores, const Tensor& coefficients,
                   std::int64_t rows_per_set) {
  const std::int64_t n = scores.dim(0);
  const std::int64_t experts = scores.dim(1);
  Tensor loss = Tensor::empty({1}, scores.dtype(), scores.device());
  dispatch_floating(op, scores.dtype(), [&]<class T>() {
    const T* s = scores.data<T>();
    const T* c = coefficients.data<T>();
    loss.data<T>()[0] = static_cast<T>(sum_rows(n, experts, [&](std::int64_t t) {
      const T* row = s + t * experts;
      const T* factor = c + t / rows_per_set * experts;
      T dot = 0;
#pragma omp simd reduction(+ : dot)
      for (std::int64_t i = 0; i < experts; ++i) dot += factor[i] * row[i];
      return static_cast<double>(dot);
    }));
  });
  if (Tape* tape = Tape::recording({scores})) {
    tape->record(op, {scores}, {&loss}, [=](Backward& b) {
      const double seed = scalar(b.grad(0));
      const GradSlot::Target ds = b.target(0);
      dispatch_floating(op, coefficients.dtype(), [&]<class T>() {
        const T* c = coefficients.data<T>();
        T* out = ds.tensor.data<T>();
        const T g = static_cast<T>(seed);
#pragma omp parallel for schedule(static) if (n * experts > kParallel)
        for (std::int64_t t = 0; t < n; ++t) {
          T* row = out + t * experts;
          const T* factor = c + t / rows_per_set * experts;
          if (ds.add) {
#pragma omp simd
            for (std::int64_t i = 0; i < experts; ++i) row[i] += g * factor[i];
          } else {
#pragma omp simd
            for (std::int64_t i = 0; i < experts; ++i) row[i] = g * factor[i];
          }
        }
      });
    });
  }
  return loss;
}

Tensor coefficients_of(const std::vector<double>& values, DType dtype) {
  const auto n = static_cast<std::int64_t>(values.size());
  return Tensor::from(values, {1, n}).to(dtype);
}

void require_scores(const char* op, const Tensor& scores, std::int64_t global, const char* what) {
  FULCRUM_REQUIRE(scores.rank() == 2 && scores.dim(1) >= 1, "{}: expected [n, experts]; got {}", op,
                  scores.shape());
  FULCRUM_REQUIRE(global >= 1, "{}: {} must be at least 1; got {}", op, what, global);
}

void require_counts(const char* op, const Tensor& counts, std::int64_t size) {
  FULCRUM_REQUIRE(
      counts.defined() && (counts.dtype() == DType::i64 || counts.dtype() == DType::f64) &&
          counts.shape() == Shape{size},
      "{}: counts must be i64 or f64 [{}]; got {} {}", op, size, counts.dtype(), counts.shape());
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

Tensor normalize_scores(const Tensor& scores) {
  require_scores("normalize_scores", scores, 1, "");
  const std::int64_t n = scores.dim(0);
  const std::int64_t experts = scores.dim(1);
  Tensor y = Tensor::empty_like(scores);
  Tensor inverse = Tensor::empty({n}, scores.dtype(), scores.device());
  dispatch_floating("normalize_scores", scores.dtype(), [&]<class T>() {
    const T* s = scores.data<T>();
    T* out = y.data<T>();
    T* scale = inverse.data<T>();
#pragma omp parallel for schedule(static) if (n * experts > kParallel)
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
  });
  if (Tape* tape = Tape::recording({scores})) {
    tape->record("normalize_scores", {scores}, {&y}, [y = y.detach(), inverse](Backward& b) {
      const Tensor grad = b.grad(0);
      const Tensor ds = Tensor::empty_like(y);
      const std::int64_t n = y.dim(0);
      const std::int64_t experts = y.dim(1);
      dispatch_floating("normalize_scores", y.dtype(), [&]<class T>() {
        const T* p = y.data<T>();
        const T* g = grad.data<T>();
        const T* scale = inverse.data<T>();
        T* out = ds.data<T>();
#pragma omp parallel for schedule(static) if (n * experts > kParallel)
        for (std::int64_t t = 0; t < n; ++t) {
          const std::int64_t row = t * experts;
          T mean = 0;
#pragma omp simd reduction(+ : mean)
          for (std::int64_t i = 0; i < experts; ++i) mean += p[row + i] * g[row + i];
#pragma omp simd
          for (std::int64_t i = 0; i < experts; ++i) out[row + i] = (g[row + i] - mean) * scale[t];
        }
      });
      b.accumulate(0, ds);
    });
  }
  return y;
}

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
  require_counts(kOp, counts, experts);
  require_groups(kOp, experts, groups);
  require_top_k(kOp, experts, top_k);
  const std::vector<double> count = to_doubles(counts);
  const std::int64_t per_group = experts / groups;
  const double tokens = static_cast<double>(global_tokens);
  std::vector<double> c(count.size());
  for (std::int64_t d = 0; d < groups; ++d) {
    double in_group = 0.0;
    for (std::int64_t j = 0; j < per_group; ++j) in_group += count[d * per_group + j];
    const double f = static_cast<double>(groups) * in_group / (static_cast<double>(top_k) * tokens);
    std::fill_n(c.begin() + d * per_group, per_group, weight * f / tokens);
  }
  return linear_loss(kOp, scores, coefficients_of(c, scores.dtype()),
                     std::max<std::int64_t>(scores.dim(0), 1));
}

Tensor communication_balance_loss(const Tensor& scores, const Tensor& group_counts,
                                  std::int64_t top_groups, std::int64_t global_tokens,
                                  double weight) {
  constexpr const char* kOp = "communication_balance_loss";
  require_scores(kOp, scores, global_tokens, "global_tokens");
  const std::int64_t experts = scores.dim(1);
  FULCRUM_REQUIRE(group_counts.defined() && group_counts.rank() == 1,
                  "{}: group_counts must have one dimension; got {}", kOp, group_counts.shape());
  const std::int64_t groups = group_counts.dim(0);
  require_counts(kOp, group_counts, groups);
  require_groups(kOp, experts, groups);
  FULCRUM_REQUIRE(top_groups >= 1 && top_groups <= groups,
                  "{}: top_groups must lie in [1, {}]; got {}", kOp, groups, top_groups);
  const std::vector<double> count = to_doubles(group_counts);
  const double tokens = static_cast<double>(global_tokens);
  std::vector<double> c(static_cast<std::size_t>(experts));
  for (std::int64_t i = 0; i < experts; ++i) {
    const double f = static_cast<double>(groups) * count[i / (experts / groups)] /
                     (static_cast<double>(top_groups) * tokens);
    c[i] = weight * f / tokens;
  }
  return linear_loss(kOp, scores, coefficients_of(c, scores.dtype()),
                     std::max<std::int64_t>(scores.dim(0), 1));
}

Tensor group_token_counts(const Tensor& experts, std::int64_t count, std::int64_t groups) {
  constexpr const char* kOp = "group_token_counts";
  FULCRUM_REQUIRE(experts.rank() == 2 && experts.dtype() == DType::i32,
                  "{}: experts must be i32 [n, k]; got {} {}", kOp, experts.dtype(),
                  experts.shape());
  require_groups(kOp, count, groups);
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
  const Tensor c = Tensor::zeros({sequences, experts}, scores.dtype());
  dispatch_floating(kOp, scores.dtype(), [&]<class T>() {
    const T* s = scores.data<T>();
    T* out = c.data<T>();
#pragma omp parallel if (n * experts > kParallel)
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
  });
  return linear_loss(kOp, normalize ? normalize_scores(scores) : scores, c, sequence_length);
}

Tensor router_z_loss(const Tensor& logits, std::int64_t global_tokens, double weight) {
  constexpr const char* kOp = "router_z_loss";
  require_scores(kOp, logits, global_tokens, "global_tokens");
  const std::int64_t n = logits.dim(0);
  const std::int64_t experts = logits.dim(1);
  const double factor = weight / static_cast<double>(global_tokens);
  Tensor loss = Tensor::empty({1}, logits.dtype(), logits.device());
  Tensor lse = Tensor::empty({n}, logits.dtype(), logits.device());
  dispatch_floating(kOp, logits.dtype(), [&]<class T>() {
    const T* x = logits.data<T>();
    T* log_sum = lse.data<T>();
    const double squares = sum_rows(n, experts, [&](std::int64_t t) {
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
  });
  if (Tape* tape = Tape::recording({logits})) {
    tape->record(kOp, {logits}, {&loss}, [=, logits = logits.detach()](Backward& b) {
      const double seed = scalar(b.grad(0));
      const GradSlot::Target dx = b.target(0);
      dispatch_floating(kOp, logits.dtype(), [&]<class T>() {
        const T* x = logits.data<T>();
        const T* log_sum = lse.data<T>();
        T* out = dx.tensor.data<T>();
#pragma omp parallel for schedule(static) if (n * experts > kParallel)
        for (std::int64_t t = 0; t < n; ++t) {
          const T g = static_cast<T>(2.0 * seed * factor) * log_sum[t];
          T* row = out + t * experts;
#pragma omp simd
          for (std::int64_t i = 0; i < experts; ++i) {
            const T d = g * fast_exp(x[t * experts + i] - log_sum[t]);
            row[i] = dx.add ? row[i] + d : d;
          }
        }
      });
    });
  }
  return loss;
}

}  // namespace fulcrum::ops
