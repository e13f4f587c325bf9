#include "tests/gradient_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "framework/autograd/tape.h"
#include "framework/core/philox.h"

namespace fulcrum::testing {

Tensor random(const Shape& shape, std::uint64_t seed, double scale) {
  Tensor t = Tensor::empty(shape, DType::f64);
  fill_normal(t, scale, seed, 1);
  return t;
}

namespace {

double weighted(const Tensor& y, const Tensor& weights) {
  double s = 0.0;
  for (std::int64_t i = 0; i < y.numel(); ++i) s += y.data<double>()[i] * weights.data<double>()[i];
  return s;
}

}  // namespace

double gradient_error(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                      const std::vector<Tensor>& inputs, double step) {
  std::vector<Tensor> leaves;
  for (const Tensor& x : inputs)
    leaves.push_back(x.dtype() == DType::f64 ? make_leaf(x.clone()) : x);
  Tape tape;
  Tensor y;
  {
    Tape::Scope recording(tape);
    y = f(leaves);
  }
  const Tensor weights = random(y.shape(), 4711);
  tape.backward(y, weights);

  double worst = 0.0;
  for (std::size_t k = 0; k < inputs.size(); ++k) {
    if (inputs[k].dtype() != DType::f64) continue;
    std::vector<Tensor> moved;
    for (const Tensor& x : inputs) moved.push_back(x.clone());
    double* p = moved[k].data<double>();
    for (std::int64_t i = 0; i < inputs[k].numel(); ++i) {
      const double x = p[i];
      p[i] = x + step;
      const double above = weighted(f(moved), weights);
      p[i] = x - step;
      const double below = weighted(f(moved), weights);
      p[i] = x;
      const double numeric = (above - below) / (2 * step);
      const double analytic = leaves[k].grad().defined() ? leaves[k].grad().data<double>()[i] : 0.0;
      const double error = std::abs(numeric - analytic) / (1.0 + std::abs(numeric));
      if (!(error <= worst))
        worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
    }
  }
  return worst;
}

double relative_error(const Tensor& a, const Tensor& b) {
  FULCRUM_REQUIRE(a.numel() == b.numel(), "relative_error: {} and {}", a.shape(), b.shape());
  const Tensor x = a.to(DType::f64);
  const Tensor y = b.to(DType::f64);
  double difference = 0.0;
  double norm = 0.0;
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const double d = x.data<double>()[i] - y.data<double>()[i];
    difference += d * d;
    norm += y.data<double>()[i] * y.data<double>()[i];
  }
  const double error = std::sqrt(difference) / (std::sqrt(norm) + 1e-300);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  const Tensor x = a.to(Device{});
  const Tensor y = b.to(Device{});
  const auto* bytes = static_cast<const char*>(x.raw());
  return x.dtype() == y.dtype() && x.shape() == y.shape() &&
         std::equal(bytes, bytes + x.bytes(), static_cast<const char*>(y.raw()));
}

}  // namespace fulcrum::testing
