#include "parallel/reduce_kernel.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace fulcrum::parallel {
namespace {

constexpr std::int64_t kBlock = 1024;  // elements that stay in the first-level cache

template <class T>
void reduce(std::span<const void* const> parts, T* out, std::int64_t count, Reduce op) {
  T total[kBlock];
  for (std::int64_t at = 0; at < count; at += kBlock) {
    const std::int64_t n = std::min(kBlock, count - at);
    std::memcpy(total, static_cast<const T*>(parts[0]) + at,
                static_cast<std::size_t>(n) * sizeof(T));
    for (const void* part : parts.subspan(1)) {
      const T* x = static_cast<const T*>(part) + at;
      if (op == Reduce::sum) {
#pragma omp simd
        for (std::int64_t i = 0; i < n; ++i) total[i] += x[i];
      } else {
        for (std::int64_t i = 0; i < n; ++i) {
          if constexpr (std::is_floating_point_v<T>) {
            if (x[i] > total[i] || x[i] != x[i]) total[i] = x[i];
          } else {
            total[i] = std::max(total[i], x[i]);
          }
        }
      }
    }
    std::memcpy(out + at, total, static_cast<std::size_t>(n) * sizeof(T));
  }
}

}  // namespace

void reduce_parts(std::span<const void* const> parts, void* out, std::int64_t count, DType dtype,
                  Reduce op) {
  switch (dtype) {
    case DType::f32:
      return reduce(parts, static_cast<float*>(out), count, op);
    case DType::f64:
      return reduce(parts, static_cast<double*>(out), count, op);
    case DType::i64:
      return reduce(parts, static_cast<std::int64_t*>(out), count, op);
    default:
      FULCRUM_REQUIRE(false, "all_reduce: f32, f64 or i64; got {}", dtype);
  }
}

}  // namespace fulcrum::parallel
