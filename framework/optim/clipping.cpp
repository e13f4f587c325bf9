#include "framework/optim/clipping.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/autograd/grad_slot.h"
#include "framework/ops/table.h"
#include "framework/optim/clipping_cuda.h"

namespace fulcrum {
namespace {

constexpr std::int64_t kParallel = 65536;  // elements from which threads pay
constexpr std::int64_t kBlock = 4096;      // elements of one partial sum

template <class T>
double sum_of_block(const T* x, std::int64_t n) {
  double sum = 0.0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    const auto value = static_cast<double>(x[i]);
    sum += value * value;
  }
  return sum;
}

}  // namespace

double square_sum(const Tensor& x) {
  const std::int64_t n = x.numel();
  const std::int64_t blocks = (n + kBlock - 1) / kBlock;
  std::vector<double> partial(static_cast<std::size_t>(blocks));
  dispatch_floating("square_sum", x.dtype(), [&]<class T>() {
    const T* values = x.data<T>();
#pragma omp parallel for schedule(static) if (n > kParallel)
    for (std::int64_t b = 0; b < blocks; ++b) {
      partial[static_cast<std::size_t>(b)] =
          sum_of_block(values + b * kBlock, std::min(kBlock, n - b * kBlock));
    }
  });
  double total = 0.0;
  for (const double sum : partial) total += sum;
  return total;
}

Tensor gradient_square_sum(const std::vector<Parameter*>& parameters, Device device) {
  std::vector<cuda::Summand> gradients;
  for (const Parameter* p : parameters) {
    FULCRUM_REQUIRE(p->value.device() == device, "gradient_square_sum: {} is on {}, not on {}",
                    p->name, p->value.device(), device);
    if (const Tensor dense = p->gradient(); dense.defined()) gradients.push_back({dense, {}});
    SparseRows& sparse = p->slot().sparse;
    if (sparse.rows.empty()) continue;
    ops::merge_in_place(sparse, p->value.dim(0));
    gradients.push_back({sparse.values[0], sparse.count});
  }
  if constexpr (kBuiltWithCuda) {
    if (device.is_cuda()) return cuda::square_sum(gradients, device);
  }
  double total = 0.0;
  for (const auto& gradient : gradients) total += square_sum(gradient.values);
  return Tensor::full({1}, total, DType::f64);
}

double clip_factor(double square_sum, double max_norm) {
  if (!std::isfinite(square_sum)) return std::numeric_limits<double>::quiet_NaN();
  const double norm = std::sqrt(square_sum);
  return max_norm > 0.0 && norm > max_norm ? max_norm / norm : 1.0;
}

}  // namespace fulcrum
