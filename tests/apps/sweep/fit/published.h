#pragma once
// Measured points of the DSE paper (figure 3), read from the figure's coordinates.

#include <vector>

#include "apps/sweep/fit/curve.h"

namespace fulcrum::testing {

inline std::vector<apps::Point> points_of(const std::vector<double>& x,
                                          const std::vector<double>& loss) {
  std::vector<apps::Point> points;
  for (std::size_t i = 0; i < x.size(); ++i) points.push_back({x[i], loss[i], {}, {}});
  return points;
}

inline std::vector<apps::Point> published_2e20() {
  return points_of(
      {.40, .51, .60, .70, .75, .80, .85, .90, .95, 1.0},
      {1.8275, 1.8227, 1.8190, 1.8172, 1.8177, 1.8170, 1.8155, 1.8172, 1.8201, 1.8292});
}

inline std::vector<apps::Point> published_6e20() {
  return points_of(
      {.398, .505, .602, .699, .753, .796, .849, .903, .946, 1.0},
      {1.7247, 1.7196, 1.7136, 1.7122, 1.7126, 1.7109, 1.7095, 1.7125, 1.7130, 1.7248});
}

}  // namespace fulcrum::testing
