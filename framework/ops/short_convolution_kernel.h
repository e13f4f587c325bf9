#pragma once
// CPU kernels of framework/ops/short_convolution.h.

#include <algorithm>
#include <cstdint>

#include "framework/core/tensor.h"
#include "framework/core/vector_math.h"

namespace fulcrum::ops::convolution {

constexpr std::int64_t kParallel = 16384;  // elements from which threads pay
constexpr std::int64_t kBlock = 64;        // positions whose weight gradients are summed at once
constexpr std::int64_t kGroup = 4;         // taps that one pass over the channels takes

// Both operators in one form. The plain convolution has no norm: its scales are one.
template <class T>
struct Problem {
  std::int64_t batch, seq, d, kernel, dilation;
  const T* x;
  const T* taps;              // [kernel, d]: weight transposed, times the norm's weight
  const T* scale;             // [batch · seq]: 1 / √(mean(x²) + eps); null without the norm
  const std::int32_t* start;  // null: no documents

  std::int64_t positions() const { return batch * seq; }
  std::int64_t blocks() const { return (positions() + kBlock - 1) / kBlock; }
  bool parallel() const { return positions() * d > kParallel; }
  // How far tap j looks back.
  std::int64_t reach(std::int64_t j) const { return (kernel - 1 - j) * dilation; }
  std::int64_t first(std::int64_t p) const { return start == nullptr ? 0 : start[p]; }
  T scale_at(std::int64_t p) const { return scale == nullptr ? T{1} : scale[p]; }
};

// Up to kGroup taps that meet a row: its elements, its scale, and a row of d elements that belongs
// to the tap.
template <class T, class Tap>
struct Meetings {
  std::int64_t count = 0;
  Tap* tap[kGroup];
  const T* row[kGroup];
  T scale[kGroup];

  void add(Tap* tap_row, const T* met_row, T s) {
    tap[count] = tap_row;
    row[count] = met_row;
    scale[count++] = s;
  }
};

// Taps begin..begin + kGroup against the rows of x that position p sees.
template <class T, class Tap>
Meetings<T, Tap> look_back(const Problem<T>& c, std::int64_t p, std::int64_t begin, Tap* taps) {
  Meetings<T, Tap> met;
  const std::int64_t sees = p % c.seq - c.first(p);
  for (std::int64_t j = begin; j < std::min(c.kernel, begin + kGroup); ++j) {
    const std::int64_t reach = c.reach(j);
    if (reach <= sees) met.add(taps + j * c.d, c.x + (p - reach) * c.d, c.scale_at(p - reach));
  }
  return met;
}

// The same against the rows of dz at the later positions that see p.
template <class T>
Meetings<T, const T> look_ahead(const Problem<T>& c, std::int64_t p, std::int64_t begin,
                                const T* dz) {
  Meetings<T, const T> met;
  const std::int64_t t = p % c.seq;
  for (std::int64_t j = begin; j < std::min(c.kernel, begin + kGroup); ++j) {
    const std::int64_t reach = c.reach(j);
    if (t + reach >= c.seq || t < c.first(p + reach)) continue;
    met.add(c.taps + j * c.d, dz + (p + reach) * c.d, T{1});
  }
  return met;
}

// z (+)= Σ scale · tap ⊙ row
template <int N, class T>
void weighted_sum(const Meetings<T, const T>& met, std::int64_t d, bool add, T* z) {
  const auto at = [&met](std::int64_t i) {
    T sum = 0;
    for (int k = 0; k < N; ++k) sum += met.scale[k] * met.tap[k][i] * met.row[k][i];
    return sum;
  };
  if (add) {
#pragma omp simd
    for (std::int64_t i = 0; i < d; ++i) z[i] += at(i);
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < d; ++i) z[i] = at(i);
  }
}

// tap += scale · z ⊙ row
template <int N, class T>
void add_products(const Meetings<T, T>& met, std::int64_t d, const T* z) {
#pragma omp simd
  for (std::int64_t i = 0; i < d; ++i) {
    for (int k = 0; k < N; ++k) met.tap[k][i] += met.scale[k] * z[i] * met.row[k][i];
  }
}

// Calls fn with the count as a constant.
template <class Fn>
void with_count(std::int64_t count, Fn&& fn) {
  static_assert(kGroup == 4);
  switch (count) {
    case 1:
      return fn.template operator()<1>();
    case 2:
      return fn.template operator()<2>();
    case 3:
      return fn.template operator()<3>();
    case 4:
      return fn.template operator()<4>();
    default:
      return fn.template operator()<0>();
  }
}

// z = the convolution at position p of the flattened batch.
template <class T>
void convolve(const Problem<T>& c, std::int64_t p, T* z) {
  for (std::int64_t j = 0; j < c.kernel; j += kGroup) {
    const Meetings<T, const T> met = look_back(c, p, j, c.taps);
    with_count(met.count, [&]<int N>() { weighted_sum<N>(met, c.d, j > 0, z); });
  }
}

template <class T>
void forward(const Problem<T>& c, bool fused, T* y) {
#pragma omp parallel for schedule(static) if (c.parallel())
  for (std::int64_t p = 0; p < c.positions(); ++p) {
    T* out = y + p * c.d;
    convolve(c, p, out);
    if (!fused) continue;
    const T* x = c.x + p * c.d;
#pragma omp simd
    for (std::int64_t i = 0; i < c.d; ++i) out[i] = x[i] + fast_silu(out[i]);
  }
}

// dz = gradient with respect to the convolution's result, and
// sums[block, j] = Σ_p dz(p) ⊙ x(p − reach_j) · scale.
template <class T>
void backward_taps(const Problem<T>& c, const T* gradient, bool fused, T* dz, T* sums) {
#pragma omp parallel for schedule(static) if (c.parallel())
  for (std::int64_t block = 0; block < c.blocks(); ++block) {
    T* sum = sums + block * c.kernel * c.d;
    std::fill_n(sum, c.kernel * c.d, T{0});
    for (std::int64_t p = block * kBlock; p < std::min(c.positions(), (block + 1) * kBlock); ++p) {
      const T* g = gradient + p * c.d;
      T* z = dz + p * c.d;
      if (fused) {
        convolve(c, p, z);
#pragma omp simd
        for (std::int64_t i = 0; i < c.d; ++i) {
          const T sigmoid = fast_sigmoid(z[i]);
          z[i] = g[i] * sigmoid * (T{1} + z[i] * (T{1} - sigmoid));
        }
      } else {
        std::copy_n(g, c.d, z);
      }
      for (std::int64_t j = 0; j < c.kernel; j += kGroup) {
        const Meetings<T, T> met = look_back(c, p, j, sum);
        with_count(met.count, [&]<int N>() { add_products<N>(met, c.d, z); });
      }
    }
  }
}

// With m(p) = Σ_j taps_j ⊙ dz(p + reach_j), the gradient of x · scale:
//   dx = scale·m − scale³/d · ⟨m, x⟩ · x + g   (fused), or m.
template <class T>
void backward_input(const Problem<T>& c, const T* gradient, bool fused, const T* dz, T* dx,
                    bool add) {
#pragma omp parallel if (c.parallel())
  {
    const Tensor scratch = Tensor::empty({c.d}, dtype_of<T>);
    T* m = scratch.data<T>();
#pragma omp for schedule(static)
    for (std::int64_t p = 0; p < c.positions(); ++p) {
      for (std::int64_t j = 0; j < c.kernel; j += kGroup) {
        const Meetings<T, const T> met = look_ahead(c, p, j, dz);
        with_count(met.count, [&]<int N>() { weighted_sum<N>(met, c.d, j > 0, m); });
      }
      const T* x = c.x + p * c.d;
      const T* g = gradient + p * c.d;
      T* out = dx + p * c.d;
      const T s = c.scale_at(p);
      T along = 0;
      if (fused) {
        T dot = 0;
#pragma omp simd reduction(+ : dot)
        for (std::int64_t i = 0; i < c.d; ++i) dot += m[i] * x[i];
        along = s * s * s * dot / c.d;
      }
      const T through = fused ? T{1} : T{0};
      if (add) {
#pragma omp simd
        for (std::int64_t i = 0; i < c.d; ++i) out[i] += s * m[i] - along * x[i] + through * g[i];
      } else {
#pragma omp simd
        for (std::int64_t i = 0; i < c.d; ++i) out[i] = s * m[i] - along * x[i] + through * g[i];
      }
    }
  }
}

}  // namespace fulcrum::ops::convolution
