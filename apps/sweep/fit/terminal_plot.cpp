#include "apps/sweep/fit/terminal_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace fulcrum::apps {
namespace {

constexpr int kLabel = 9;  // characters of a loss label and the axis

class Canvas {
 public:
  Canvas(int columns, int rows) : rows_(rows, std::string(columns, ' ')) {}
  // x and y are shares of the canvas, y upwards.
  void put(double x, double y, char mark) {
    if (!(y >= 0.0 && y <= 1.0)) return;
    const auto last_row = static_cast<double>(rows_.size() - 1);
    const auto last_column = static_cast<double>(rows_[0].size() - 1);
    rows_[std::lround((1.0 - y) * last_row)][std::lround(x * last_column)] = mark;
  }
  const std::vector<std::string>& rows() const { return rows_; }

 private:
  std::vector<std::string> rows_;
};

}  // namespace

std::string terminal_plot(const Curve& curve, const PlotSpec& spec) {
  if (curve.levels.empty()) return "";
  const auto position = [&](double x) { return spec.log_x ? std::log10(x) : x; };
  const double left = position(curve.first());
  const double span = std::max(position(curve.last()) - left, 1e-12);
  double low = HUGE_VAL, high = -HUGE_VAL;
  for (const Level& level : curve.levels) {
    for (const double loss : level.losses) low = std::min(low, loss), high = std::max(high, loss);
  }
  const double margin = std::max(0.05 * (high - low), 1e-6);
  low -= margin, high += margin;
  const auto share = [&](double loss) { return (loss - low) / (high - low); };

  const int columns = std::max(20, spec.width - kLabel);
  Canvas canvas(columns, spec.height);
  for (const PlotSeries& series : spec.series) {
    for (int i = 0; i < columns; ++i) {
      const double along = static_cast<double>(i) / (columns - 1);
      const double x = left + along * span;
      canvas.put(along, share(series.value(spec.log_x ? std::pow(10.0, x) : x)), series.mark);
    }
  }
  for (const Level& level : curve.levels) {
    const double along = (position(level.x) - left) / span;
    for (const double loss : level.losses) canvas.put(along, share(loss), '+');
    canvas.put(along, share(level.mean()), 'o');
  }

  std::string text;
  for (int row = 0; row < spec.height; ++row) {
    const bool labelled = row % 5 == 0 || row + 1 == spec.height;
    const double loss = high - (high - low) * row / (spec.height - 1);
    std::string line = canvas.rows()[row];
    line.erase(line.find_last_not_of(' ') + 1);
    text +=
        labelled ? fmt::format("{:>7.4f} |{}\n", loss, line) : fmt::format("{:>7} |{}\n", "", line);
  }
  const std::string first = fmt::format("{:g}", curve.first());
  const std::string last = fmt::format("{:g}", curve.last());
  text += fmt::format("{:>7} +{:-<{}}\n", "", "", columns);
  text += fmt::format("{:>{}}{}{:>{}}\n", "", kLabel, first, last,
                      std::max<int>(1, columns - static_cast<int>(first.size())));
  text += fmt::format("{:>{}}o mean   + run", "", kLabel);
  for (const PlotSeries& series : spec.series)
    text += fmt::format("   {} {}", series.mark, series.name);
  return text + "\n";
}

}  // namespace fulcrum::apps
