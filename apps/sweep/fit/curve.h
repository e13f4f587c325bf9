#pragma once
// Measurements of one curve: losses at distinct abscissas, several of them where several seeds ran.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fulcrum::apps {

// One finished run, or one that is planned and has no loss yet.
struct Point {
  double x = 0.0;  // ρ, or slots
  double loss = 0.0;
  std::optional<std::int64_t> seed;
  std::optional<double> flops;
};

struct Level {
  double x = 0.0;
  std::vector<double> losses;
  double mean() const;
};

struct Curve {
  std::vector<Level> levels;  // x ascending

  std::int64_t count() const;
  double first() const { return levels.front().x; }
  double last() const { return levels.back().x; }
  std::vector<double> means() const;
  // Index of the level whose mean loss is smallest.
  std::size_t best() const;
  // Degrees of freedom that repeated seeds give, Σ (nᵢ − 1), and the pooled variance within levels
  // (0 without repeats).
  std::int64_t seed_freedom() const;
  double seed_variance() const;
};

// Groups points by x; values of x closer than 1e-9 are the same level. Within a level the order is
// by seed, then by loss, so that a fit does not depend on the order of the rows.
Curve make_curve(std::vector<Point> points);

}  // namespace fulcrum::apps
