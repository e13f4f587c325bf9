#pragma once
// The Adam update of an element, on either device, and of n neighbouring elements on the CPU; AdamW
// and RowAdam share it.

#include <cmath>
#include <cstdint>

#include "framework/core/dtype.h"
#include "framework/core/host_device.h"
#include "framework/optim/stochastic_rounding.h"

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

// g is the gradient as it comes.
template <class T>
FULCRUM_HOST_DEVICE inline void adam_element(const AdamConstants<T>& c, T g, T& w, T& m, T& v) {
  const T gradient = c.gradient_scale * g;
  m = c.beta1 * m + (T{1} - c.beta1) * gradient;
  v = c.beta2 * v + (T{1} - c.beta2) * gradient * gradient;
  w = c.keep * w - c.step_size * m / (std::sqrt(v) * c.inverse_root + c.eps);
}

// w, m, v and g do not overlap; g null is a gradient of zero.
template <class T>
void adam_elements(const AdamConstants<T>& c, const T* g, std::int64_t n, T* w, T* m, T* v) {
  if (g == nullptr) {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) adam_element(c, T{0}, w[i], m[i], v[i]);
  } else {
#pragma omp simd
    for (std::int64_t i = 0; i < n; ++i) adam_element(c, g[i], w[i], m[i], v[i]);
  }
}

// With moments in bf16. The update comes from the new moments as they are before they are rounded.
// draws: of elements, of which these are first..first+n.
template <class T>
void adam_elements(const AdamConstants<T>& c, const T* g, std::int64_t first, std::int64_t n, T* w,
                   BFloat16* m, BFloat16* v, const RoundingDraws& draws) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) {
    T new_m = static_cast<float>(m[i]);
    T new_v = static_cast<float>(v[i]);
    adam_element(c, g == nullptr ? T{0} : g[i], w[i], new_m, new_v);
    const std::uint32_t random = draws(first + i);
    m[i].bits = round_stochastically(static_cast<float>(new_m), random & 0xffffu);
    v[i].bits = round_stochastically(static_cast<float>(new_v), random >> 16);
  }
}

}  // namespace fulcrum
