#pragma once
// A curve drawn with characters: o for the mean of a level, + for its single runs, one character
// for each fitted form.

#include <functional>
#include <string>
#include <vector>

#include "apps/sweep/fit/curve.h"

namespace fulcrum::apps {

struct PlotSeries {
  char mark;
  std::string name;
  std::function<double(double)> value;
};

struct PlotSpec {
  int width = 80;  // characters, with the axis labels
  int height = 16;
  bool log_x = false;
  std::vector<PlotSeries> series;  // later ones are drawn over earlier ones
};

// Lines that end in newlines; empty for an empty curve.
std::string terminal_plot(const Curve& curve, const PlotSpec& spec);

}  // namespace fulcrum::apps
