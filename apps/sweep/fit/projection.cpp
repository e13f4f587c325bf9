#include "apps/sweep/fit/projection.h"

#include <algorithm>
#include <cmath>

namespace fulcrum::apps {
namespace {

constexpr double kHuber = 1.345;  // 95 % efficient for normal noise
constexpr int kRounds = 30;

Basis basis_at(double rho, double alpha, double beta, double delta) {
  return {std::expm1(-alpha * std::log(rho)) / alpha,
          (std::pow(1.0 - rho + delta, -beta) - std::pow(1.0 + delta, -beta)) / beta};
}

double huber(double z) {
  const double size = std::abs(z);
  return size <= kHuber ? 0.5 * z * z : kHuber * (size - 0.5 * kHuber);
}

}  // namespace

Projection::Projection(const Curve& curve, double sigma) : curve_(curve), sigma_(sigma) {
  weights_.resize(curve.levels.size());
  targets_.resize(curve.levels.size());
  basis_.resize(curve.levels.size());
}

double Projection::solve(double alpha, double beta, double delta) {
  for (std::size_t i = 0; i < basis_.size(); ++i)
    basis_[i] = basis_at(curve_.levels[i].x, alpha, beta, delta);
  bool first = true;
  double previous = HUGE_VAL;
  double value = 0.0;
  for (int round = 0; round < kRounds; ++round) {
    reweight(first);
    first = false;
    linear_ = weighted();
    value = cost();
    if (previous - value <= 1e-13 * (1.0 + value)) break;
    previous = value;
  }
  return value;
}

std::array<double, 3> Projection::gradient(double alpha, double beta, double delta) const {
  std::array<double, 3> g{};
  for (std::size_t i = 0; i < basis_.size(); ++i) {
    double pull = 0.0;  // −∂objective/∂model
    for (const double loss : curve_.levels[i].losses)
      pull += std::clamp((loss - linear_.at(basis_[i])) / sigma_, -kHuber, kHuber) / sigma_;
    const double rho = curve_.levels[i].x;
    const double u = 1.0 - rho + delta;
    const double v = 1.0 + delta;
    const double d_alpha = -std::log(rho) * std::pow(rho, -alpha) - basis_[i].experts;
    const double d_beta =
        -std::log(u) * std::pow(u, -beta) + std::log(v) * std::pow(v, -beta) - basis_[i].memory;
    const double d_delta = -delta * (std::pow(u, -beta - 1.0) - std::pow(v, -beta - 1.0));
    g[0] -= pull * linear_.experts * d_alpha;
    g[1] -= pull * linear_.memory * d_beta;
    g[2] -= pull * linear_.memory * d_delta;
  }
  return g;
}

void Projection::reweight(bool plain) {
  for (std::size_t i = 0; i < basis_.size(); ++i) {
    double weight = 0.0, sum = 0.0;
    for (const double loss : curve_.levels[i].losses) {
      double w = 1.0;
      if (!plain) {
        const double size = std::abs(loss - linear_.at(basis_[i])) / sigma_;
        if (size > kHuber) w = kHuber / size;
      }
      weight += w;
      sum += w * loss;
    }
    weights_[i] = weight;
    targets_[i] = sum / weight;
  }
}

double Projection::cost() const {
  double sum = 0.0;
  for (std::size_t i = 0; i < basis_.size(); ++i)
    for (const double loss : curve_.levels[i].losses)
      sum += huber((loss - linear_.at(basis_[i])) / sigma_);
  return sum;
}

// Weighted least squares with both slopes at least zero.
Linear Projection::weighted() const {
  double total = 0.0, mean_e = 0.0, mean_m = 0.0, mean_y = 0.0;
  for (std::size_t i = 0; i < basis_.size(); ++i) {
    total += weights_[i];
    mean_e += weights_[i] * basis_[i].experts;
    mean_m += weights_[i] * basis_[i].memory;
    mean_y += weights_[i] * targets_[i];
  }
  mean_e /= total, mean_m /= total, mean_y /= total;
  double ee = 0.0, em = 0.0, mm = 0.0, ey = 0.0, my = 0.0;
  for (std::size_t i = 0; i < basis_.size(); ++i) {
    const double e = basis_[i].experts - mean_e;
    const double m = basis_[i].memory - mean_m;
    const double y = targets_[i] - mean_y;
    ee += weights_[i] * e * e;
    em += weights_[i] * e * m;
    mm += weights_[i] * m * m;
    ey += weights_[i] * e * y;
    my += weights_[i] * m * y;
  }
  const double determinant = ee * mm - em * em;
  double experts = -1.0, memory = -1.0;
  if (determinant > 1e-12 * ee * mm) {
    experts = (ey * mm - my * em) / determinant;
    memory = (my * ee - ey * em) / determinant;
  }
  if (experts < 0.0 || memory < 0.0) {
    // The better of the two edges of the quadrant; each explains slope² · variance.
    const double only_e = ee > 0.0 ? std::max(0.0, ey / ee) : 0.0;
    const double only_m = mm > 0.0 ? std::max(0.0, my / mm) : 0.0;
    const bool keep_e = only_e * only_e * ee >= only_m * only_m * mm;
    experts = keep_e ? only_e : 0.0;
    memory = keep_e ? 0.0 : only_m;
  }
  return {mean_y - experts * mean_e - memory * mean_m, experts, memory};
}

}  // namespace fulcrum::apps
