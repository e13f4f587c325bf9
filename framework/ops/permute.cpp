#include "framework/ops/permute.h"

#include <algorithm>

#include "framework/autograd/tape.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 32768;  // elements from which threads pay

template <class T>
void gather(const T* x, const std::int64_t* token, std::int64_t rows, std::int64_t width, T* out) {
#pragma omp parallel for schedule(static) if (rows * width > kParallel)
  for (std::int64_t r = 0; r < rows; ++r) {
    std::copy_n(x + token[r] * width, width, out + r * width);
  }
}

// out[t] (+)= Σ_j weight[t, j] · y[slot[t, j]], or the plain sum without weights.
template <class T>
void gather_sum(const T* y, const std::int64_t* slot, const T* weight, std::int64_t tokens,
                std::int64_t k, std::int64_t width, bool add, T* out) {
#pragma omp parallel for schedule(static) if (tokens * k * width > kParallel)
  for (std::int64_t t = 0; t < tokens; ++t) {
    T* sum = out + t * width;
    bool started = add;
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int64_t row = slot[t * k + j];
      if (row < 0) continue;
      const T* in = y + row * width;
      const T w = weight != nullptr ? weight[t * k + j] : T{1};
      if (started) {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) sum[i] += w * in[i];
      } else {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) sum[i] = w * in[i];
      }
      started = true;
    }
    if (!started) std::fill_n(sum, width, T{0});
  }
}

// dy[slot[t, j]] (+)= weight[t, j] · g[t]
template <class T>
void scatter(const T* g, const std::int64_t* slot, const T* weight, std::int64_t tokens,
             std::int64_t k, std::int64_t width, bool add, T* dy) {
#pragma omp parallel for schedule(static) if (tokens * k * width > kParallel)
  for (std::int64_t t = 0; t < tokens; ++t) {
    const T* in = g + t * width;
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int64_t row = slot[t * k + j];
      if (row < 0) continue;
      T* out = dy + row * width;
      const T w = weight[t * k + j];
      if (add) {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) out[i] += w * in[i];
      } else {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) out[i] = w * in[i];
      }
    }
  }
}

// dw[t, j] = ⟨y[slot[t, j]], g[t]⟩
template <class T>
void row_products(const T* y, const T* g, const std::int64_t* slot, std::int64_t tokens,
                  std::int64_t k, std::int64_t width, T* dw) {
#pragma omp parallel for schedule(static) if (tokens * k * width > kParallel)
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int64_t row = slot[t * k + j];
      const T* a = y + std::max<std::int64_t>(row, 0) * width;
      const T* b = g + t * width;
      T s = 0;
      if (row >= 0) {
#pragma omp simd reduction(+ : s)
        for (std::int64_t i = 0; i < width; ++i) s += a[i] * b[i];
      }
      dw[t * k + j] = s;
    }
  }
}

void require_permutation(const char* op, const Permutation& p) {
  FULCRUM_REQUIRE(p.token.defined() && p.slot.defined() && p.token.dtype() == DType::i64 &&
                      p.slot.dtype() == DType::i64 && p.token.rank() == 1 && p.slot.rank() == 2,
                  "{}: a permutation has token i64 [rows] and slot i64 [n, k]; got {} {} and {} {}",
                  op, p.token.dtype(), p.token.shape(), p.slot.dtype(), p.slot.shape());
}

}  // namespace

Permutation make_permutation(const Tensor& experts, std::int64_t count) {
  FULCRUM_REQUIRE(
      experts.rank() == 2 && experts.dtype() == DType::i32 && count >= 1,
      "make_permutation: experts must be i32 [n, k], count at least 1; got {} {}, count {}",
      experts.dtype(), experts.shape(), count);
  const std::int64_t k = experts.dim(1);
  const std::int64_t slots = experts.numel();
  const std::int32_t* expert = experts.data<std::int32_t>();

  Permutation p;
  p.offsets = Tensor::zeros({count + 1}, DType::i64);
  std::int64_t* offset = p.offsets.data<std::int64_t>();
  for (std::int64_t s = 0; s < slots; ++s) {
    FULCRUM_REQUIRE(
        expert[s] >= -1 && expert[s] < count,
        "make_permutation: experts lie in [0, {}) or are -1; got {} at token {}, slot {}", count,
        expert[s], s / k, s % k);
    if (expert[s] >= 0) ++offset[expert[s] + 1];
  }
  for (std::int64_t e = 0; e < count; ++e) offset[e + 1] += offset[e];

  p.token = Tensor::empty({offset[count]}, DType::i64);
  p.slot = Tensor::empty(experts.shape(), DType::i64);
  std::int64_t* token = p.token.data<std::int64_t>();
  std::int64_t* slot = p.slot.data<std::int64_t>();
  std::vector<std::int64_t> next(offset, offset + count);
  for (std::int64_t s = 0; s < slots; ++s) {
    slot[s] = expert[s] < 0 ? -1 : next[static_cast<std::size_t>(expert[s])]++;
    if (slot[s] >= 0) token[slot[s]] = s / k;
  }
  return p;
}

Tensor permute(const Tensor& x, const Permutation& p) {
  require_permutation("permute", p);
  FULCRUM_REQUIRE(x.rank() == 2 && x.dim(0) == p.tokens(),
                  "permute: x must be [n, d] with the permutation's n = {}; got {}", p.tokens(),
                  x.shape());
  const std::int64_t width = x.dim(1);
  Tensor y = Tensor::empty({p.rows(), width}, x.dtype(), x.device());
  dispatch_floating("permute", x.dtype(), [&]<class T>() {
    gather(x.data<T>(), p.token.data<std::int64_t>(), p.rows(), width, y.data<T>());
  });
  if (Tape* tape = Tape::recording({x})) {
    tape->record("permute", {x}, {&y}, [slot = p.slot, width](Backward& b) {
      const Tensor g = b.grad(0);
      const GradSlot::Target dx = b.target(0);
      dispatch_floating("permute", g.dtype(), [&]<class T>() {
        gather_sum<T>(g.data<T>(), slot.data<std::int64_t>(), nullptr, slot.dim(0), slot.dim(1),
                      width, dx.add, dx.tensor.data<T>());
      });
    });
  }
  return y;
}

Tensor combine(const Tensor& y, const Tensor& weights, const Permutation& p) {
  require_permutation("combine", p);
  FULCRUM_REQUIRE(y.rank() == 2 && y.dim(0) == p.rows() && weights.shape() == p.slot.shape() &&
                      weights.dtype() == y.dtype(),
                  "combine: y must be [{}, d] and weights {} of one dtype; got {} {} and {} {}",
                  p.rows(), p.slot.shape(), y.dtype(), y.shape(), weights.dtype(), weights.shape());
  const std::int64_t tokens = p.tokens();
  const std::int64_t k = p.slot.dim(1);
  const std::int64_t width = y.dim(1);
  Tensor h = Tensor::empty({tokens, width}, y.dtype(), y.device());
  dispatch_floating("combine", y.dtype(), [&]<class T>() {
    gather_sum<T>(y.data<T>(), p.slot.data<std::int64_t>(), weights.data<T>(), tokens, k, width,
                  false, h.data<T>());
  });
  if (Tape* tape = Tape::recording({y, weights})) {
    tape->record(
        "combine", {y, weights}, {&h},
        [y = y.detach(), weights = weights.detach(), slot = p.slot, tokens, k, width](Backward& b) {
          const Tensor g = b.grad(0);
          dispatch_floating("combine", g.dtype(), [&]<class T>() {
            const std::int64_t* rows = slot.data<std::int64_t>();
            if (b.needs(0)) {
              const GradSlot::Target dy = b.target(0);
              scatter(g.data<T>(), rows, weights.data<T>(), tokens, k, width, dy.add,
                      dy.tensor.data<T>());
            }
            if (b.needs(1)) {
              const Tensor dw = Tensor::empty_like(weights);
              row_products(y.data<T>(), g.data<T>(), rows, tokens, k, width, dw.data<T>());
              b.accumulate(1, dw);
            }
          });
        });
  }
  return h;
}

}  // namespace fulcrum::ops
