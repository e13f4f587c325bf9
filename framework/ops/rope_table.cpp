#include "framework/ops/rope_table.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <mutex>
#include <tuple>

#include "framework/ops/dispatch.h"

namespace fulcrum::ops {
namespace {

std::int64_t grown(std::int64_t positions) {
  return static_cast<std::int64_t>(
      std::bit_ceil(static_cast<std::uint64_t>(std::max<std::int64_t>(positions, 256))));
}

Tensor host_table(std::int64_t positions, std::int64_t half, double theta, DType dtype) {
  static std::mutex mutex;
  static auto* tables = new std::map<std::tuple<std::int64_t, double, DType>, Tensor>;
  std::lock_guard lock(mutex);
  Tensor& table = (*tables)[{half, theta, dtype}];
  if (table.defined() && table.dim(0) >= positions) return table;
  table = Tensor::empty({grown(positions), 2, half}, dtype);
  dispatch_floating("rope", dtype, [&]<class T>() {
    T* out = table.data<T>();
#pragma omp parallel for schedule(static)
    for (std::int64_t position = 0; position < table.dim(0); ++position) {
      T* row = out + position * 2 * half;
      for (std::int64_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) *
                             std::pow(theta, -static_cast<double>(i) / static_cast<double>(half));
        row[i] = static_cast<T>(std::cos(angle));
        row[half + i] = static_cast<T>(std::sin(angle));
      }
    }
  });
  return table;
}

}  // namespace

Tensor angle_table(std::int64_t positions, std::int64_t half, double theta, const Tensor& like) {
  const DType dtype = accumulation_dtype(like.dtype());
  if (like.device().is_cpu()) return host_table(positions, half, theta, dtype);
  // None is ever let go: a captured graph may read it.
  static std::mutex mutex;
  static auto* tables = new std::map<std::tuple<std::int64_t, std::int64_t, double, int>, Tensor>;
  std::lock_guard lock(mutex);
  const std::int64_t size = grown(positions);
  Tensor& table = (*tables)[{size, half, theta, like.device().index}];
  if (!table.defined()) {
    table = host_table(size, half, theta, dtype).slice(0, size).to(like.device());
  }
  return table;
}

}  // namespace fulcrum::ops
