#pragma once
// One Adam update of n neighbouring elements, shared by AdamW and RowAdam.

#include <cmath>
#include <cstdint>

namespace fulcrum {

template <class T>
struct AdamConstants {
  T beta1, beta2, eps;
  T keep;          // 1 − lr · weight decay
  T step_size;     // lr / (1 − β1ᵗ)
  T inverse_root;  // 1 / √(1 − β2ᵗ)
  T gradient_scale;

  AdamConstants(double b1, double b2, double e, double lr, double weight_decay, double correction1,
                double correction2, double scale)
      : beta1(static_cast<T>(b1)),
        beta2(static_cast<T>(b2)),
        eps(static_cast<T>(e)),
        keep(static_cast<T>(1.0 - lr * weight_decay)),
        step_size(static_cast<T>(lr / correction1)),
        inverse_root(static_cast<T>(1.0 / std::sqrt(correction2))),
        gradient_scale(static_cast<T>(scale)) {}
};

// w, m, v and g do not overlap; g null is a gradient of zero.
template <class T>
void adam_elements(const AdamConstants<T>& c, const T* g, std::int64_t n, T* w, T* m, T* v) {
  const auto update = [&](std::int64_t i, T gradient) {
    const T first = c.beta1 * m[i] + (T{1} - c.beta1) * gradient;
    const T second = c.beta2 * v[i] + (T{1} - c.beta2) * gradient * gradient;
    m[i] = first;
    v[i] = second;
    w[i] = c.keep * w[i] - c.step_size * first / (std::sqrt(second) * c.inverse_root + c.eps);
  };
  if (g == nullptr) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) update(i, T{0});
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) update(i, c.gradient_scale * g[i]);
  }
}

}  // namespace fulcrum
