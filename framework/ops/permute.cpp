#include "framework/ops/permute.h"

#include <algorithm>

#include "framework/autograd/tape.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/permute_cuda.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 32768;  // elements from which threads pay

// rows[r] = x[source[r] / k]
template <class T>
void gather(const T* x, const std::int64_t* source, std::int64_t rows, std::int64_t k,
            std::int64_t width, T* out) {
#pragma omp parallel for schedule(static) if (rows * width > kParallel)
  for (std::int64_t r = 0; r < rows; ++r) {
    std::copy_n(x + source[r] / k * width, width, out + r * width);
  }
}

// out[t] = base[t] + Σ_j y[slot[t, j]]; base may be null, and may be out.
template <class T>
void gather_sum(const T* y, const std::int64_t* slot, const T* base, std::int64_t tokens,
                std::int64_t k, std::int64_t width, T* out) {
#pragma omp parallel for schedule(static) if (tokens * k * width > kParallel)
  for (std::int64_t t = 0; t < tokens; ++t) {
    T* sum = out + t * width;
    const T* so_far = base == nullptr ? nullptr : base + t * width;
    for (std::int64_t j = 0; j < k; ++j) {
      const std::int64_t row = slot[t * k + j];
      if (row < 0) continue;
      const T* in = y + row * width;
      if (so_far != nullptr) {
#pragma omp simd
        for (std::int64_t i = 0; i < width; ++i) sum[i] = so_far[i] + in[i];
      } else {
        std::copy_n(in, width, sum);
      }
      so_far = sum;
    }
    if (so_far == nullptr) {
      std::fill_n(sum, width, T{0});
    } else if (so_far != sum) {
      std::copy_n(so_far, width, sum);
    }
  }
}

// rows[r] = x[token of r]
void spread_rows(const char* op, const Tensor& x, const Permutation& p, const Tensor& rows) {
  dispatch(
      op, x,
      [&]<class T>() {
        gather(x.data<T>(), p.source.data<std::int64_t>(), p.rows(), p.slot.dim(1), x.dim(1),
               rows.data<T>());
      },
      [&] { cuda::spread_rows(x, p, rows); });
}

// out[t] = base[t] + Σ_j rows[slot[t, j]]
void sum_slots(const char* op, const Tensor& rows, const Permutation& p, const Tensor& base,
               const Tensor& out) {
  dispatch(
      op, rows,
      [&]<class T>() {
        gather_sum<T>(rows.data<T>(), p.slot.data<std::int64_t>(),
                      base.defined() ? base.data<T>() : nullptr, p.tokens(), p.slot.dim(1),
                      rows.dim(1), out.data<T>());
      },
      [&] { cuda::sum_slots(rows, p, base, out); });
}

void require_permutation(const char* op, const Permutation& p, const Tensor& x) {
  FULCRUM_REQUIRE(
      p.source.defined() && p.slot.defined() && p.offsets.defined() &&
          p.source.dtype() == DType::i64 && p.slot.dtype() == DType::i64 && p.source.rank() == 1 &&
          p.slot.rank() == 2 && p.slot.device() == x.device() &&
          (x.device().is_cpu() || p.rows() == p.slot.numel()),
      "{}: a permutation has source i64 [rows] and slot i64 [n, k], here on {}; got {} {} and {} "
      "{} on {}",
      op, x.device(), p.source.dtype(), p.source.shape(), p.slot.dtype(), p.slot.shape(),
      p.slot.device());
}

// Fills p but for source, whose length is known only afterwards.
void sort_slots(const Tensor& experts, std::int64_t count, Permutation& p) {
  const std::int64_t k = experts.dim(1);
  const std::int64_t slots = experts.numel();
  const std::int32_t* expert = experts.data<std::int32_t>();
  p.offsets.zero();
  std::int64_t* offset = p.offsets.data<std::int64_t>();
  for (std::int64_t s = 0; s < slots; ++s) {
    FULCRUM_REQUIRE(
        expert[s] >= -1 && expert[s] < count,
        "make_permutation: experts lie in [0, {}) or are -1; got {} at token {}, slot {}", count,
        expert[s], s / k, s % k);
    if (expert[s] >= 0) ++offset[expert[s] + 1];
  }
  for (std::int64_t e = 0; e < count; ++e) offset[e + 1] += offset[e];

  p.source = Tensor::empty({offset[count]}, DType::i64);
  std::int64_t* source = p.source.data<std::int64_t>();
  std::int64_t* slot = p.slot.data<std::int64_t>();
  std::vector<std::int64_t> next(offset, offset + count);
  for (std::int64_t s = 0; s < slots; ++s) {
    slot[s] = expert[s] < 0 ? -1 : next[static_cast<std::size_t>(expert[s])]++;
    if (slot[s] >= 0) source[slot[s]] = s;
  }
}

}  // namespace

Permutation make_permutation(const Tensor& experts, std::int64_t count) {
  FULCRUM_REQUIRE(
      experts.rank() == 2 && experts.dtype() == DType::i32 && count >= 1,
      "make_permutation: experts must be i32 [n, k], count at least 1; got {} {}, count {}",
      experts.dtype(), experts.shape(), count);
  const Device device = experts.device();
  Permutation p;
  p.offsets = Tensor::empty({count + 1}, DType::i64, device);
  p.slot = Tensor::empty(experts.shape(), DType::i64, device);
  if constexpr (kBuiltWithCuda) {
    if (device.is_cuda()) {
      p.source = Tensor::empty({experts.numel()}, DType::i64, device);
      cuda::make_permutation(experts, count, p);
      return p;
    }
  }
  sort_slots(experts, count, p);
  return p;
}

Tensor permute(const Tensor& x, const Permutation& p) {
  require_permutation("permute", p, x);
  FULCRUM_REQUIRE(x.rank() == 2 && x.dim(0) == p.tokens(),
                  "permute: x must be [n, d] with the permutation's n = {}; got {}", p.tokens(),
                  x.shape());
  Tensor rows = Tensor::empty({p.rows(), x.dim(1)}, x.dtype(), x.device());
  spread_rows("permute", x, p, rows);
  if (Tape* tape = Tape::recording({x})) {
    tape->record("permute", {x}, {&rows}, [p](Backward& b) {
      const GradSlot::Target dx = b.target(0);
      sum_slots("permute", b.grad(0), p, dx.add ? dx.tensor : Tensor(), dx.tensor);
    });
  }
  return rows;
}

Tensor combine(const Tensor& y, const Permutation& p, const Tensor& addend) {
  require_permutation("combine", p, y);
  FULCRUM_REQUIRE(y.rank() == 2 && y.dim(0) == p.rows(), "combine: y must be [{}, d]; got {}",
                  p.rows(), y.shape());
  Tensor h = Tensor::empty({p.tokens(), y.dim(1)}, y.dtype(), y.device());
  FULCRUM_REQUIRE(!addend.defined() || (addend.shape() == h.shape() && addend.dtype() == h.dtype()),
                  "combine: the addend must be {} {}; got {} {}", h.dtype(), h.shape(),
                  addend.dtype(), addend.shape());
  sum_slots("combine", y, p, addend, h);
  if (Tape* tape = Tape::recording({y, addend})) {
    tape->record("combine", {y, addend}, {&h}, [p](Backward& b) {
      const Tensor g = b.grad(0);
      if (b.needs(0)) {
        const Tensor dy = Tensor::empty({p.rows(), g.dim(1)}, g.dtype(), g.device());
        spread_rows("combine", g, p, dy);
        b.accumulate(0, dy);
      }
      b.accumulate(1, g);
    });
  }
  return h;
}

}  // namespace fulcrum::ops
