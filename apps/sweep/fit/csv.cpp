#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <string_view>

#include "apps/sweep/fit/dataset.h"
#include "framework/core/error.h"

namespace fulcrum::apps {
namespace {

struct Cell {
  std::string_view text;
  std::size_t column;  // of its first character, from 1
};

struct Place {
  const std::string& path;
  std::size_t line;

  [[noreturn]] void fail(std::size_t column, const std::string& message) const {
    throw UserError(fmt::format("{}:{}:{}: {}", path, line, column, message));
  }
};

std::vector<Cell> split(std::string_view line) {
  std::vector<Cell> cells;
  std::size_t begin = 0;
  while (true) {
    const std::size_t end = std::min(line.find(',', begin), line.size());
    std::string_view text = line.substr(begin, end - begin);
    std::size_t column = begin + 1;
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t'))
      text.remove_prefix(1), ++column;
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
    cells.push_back({text, column});
    if (end == line.size()) return cells;
    begin = end + 1;
  }
}

template <class T>
T parse_number(const Place& place, const Cell& cell, std::string_view name, const char* expected) {
  T value{};
  const char* end = cell.text.data() + cell.text.size();
  const auto [stop, error] = std::from_chars(cell.text.data(), end, value);
  if (cell.text.empty() || error != std::errc() || stop != end)
    place.fail(cell.column, fmt::format("{} must be {}; found '{}'", name, expected, cell.text));
  if constexpr (std::is_floating_point_v<T>) {
    if (!std::isfinite(value))
      place.fail(cell.column, fmt::format("{} must be finite; found '{}'", name, cell.text));
  }
  return value;
}

struct Header {
  std::vector<std::string> names;  // of the columns
  bool seeds = false;
};

Header read_header(const Place& place, std::string_view line, const std::string& x_name) {
  Header header;
  const std::string allowed = fmt::format("{},loss[,seed][,flops]", x_name);
  for (const Cell& cell : split(line)) {
    const std::string name(cell.text);
    if (name != x_name && name != "loss" && name != "seed" && name != "flops") {
      std::string hint;
      if (name == "slots") hint = " (for a table of slots give --log-linear)";
      if (name == "rho") hint = " (for a table of rho leave --log-linear out)";
      place.fail(cell.column,
                 fmt::format("unknown column '{}'{}; the header is {}", name, hint, allowed));
    }
    if (std::count(header.names.begin(), header.names.end(), name) != 0)
      place.fail(cell.column, fmt::format("column '{}' appears twice", name));
    header.names.push_back(name);
    header.seeds = header.seeds || name == "seed";
  }
  for (const std::string& needed : {x_name, std::string("loss")}) {
    if (std::count(header.names.begin(), header.names.end(), needed) == 0)
      place.fail(1, fmt::format("column '{}' is missing; the header is {}", needed, allowed));
  }
  return header;
}

Point read_row(const Place& place, std::string_view line, const Header& header, FitKind kind) {
  const std::vector<Cell> cells = split(line);
  if (cells.size() != header.names.size())
    place.fail(cells.back().column, fmt::format("the header has {} columns, this row has {}",
                                                header.names.size(), cells.size()));
  Point point;
  for (std::size_t i = 0; i < cells.size(); ++i) {
    const std::string& name = header.names[i];
    const Cell& cell = cells[i];
    if (name == "seed") {
      point.seed = parse_number<std::int64_t>(place, cell, name, "an integer");
    } else if (name == "loss") {
      point.loss = parse_number<double>(place, cell, name, "a number");
    } else if (name == "flops") {
      point.flops = parse_number<double>(place, cell, name, "a number");
      if (*point.flops <= 0.0)
        place.fail(cell.column, fmt::format("flops must be positive; found {}", cell.text));
    } else {
      point.x = parse_number<double>(place, cell, name, "a number");
      if (kind == FitKind::u_curve && !(point.x > 0.0 && point.x <= 1.0))
        place.fail(cell.column,
                   fmt::format("rho is a share and must lie in (0, 1]; found {}", cell.text));
      if (kind == FitKind::log_linear && point.x < 0.0)
        place.fail(cell.column, fmt::format("slots must not be negative; found {}", cell.text));
    }
  }
  return point;
}

// Seeds that at least two levels have are taken to be planned at every level of the curve.
std::vector<MissingPoint> missing_seeds(const CurveData& curve) {
  std::map<std::int64_t, std::set<double>> levels_of;
  std::set<double> levels;
  for (const Point& point : curve.points) {
    levels.insert(point.x);
    levels_of[*point.seed].insert(point.x);
  }
  std::vector<MissingPoint> missing;
  for (const double x : levels) {
    for (const auto& [seed, present] : levels_of) {
      if (present.size() >= 2 && !present.contains(x)) missing.push_back({x, seed, "no row"});
    }
  }
  return missing;
}

}  // namespace

Dataset read_csv(const std::string& path, FitKind kind) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw UserError(fmt::format("{}: cannot be read", path));
  Dataset dataset;
  dataset.source = path;
  dataset.kind = kind;
  dataset.x_name = kind == FitKind::u_curve ? "rho" : "slots";
  std::optional<Header> header;
  std::map<std::optional<double>, CurveData> curves;
  std::set<std::tuple<std::optional<double>, double, std::int64_t>> seen;
  std::string text;
  for (std::size_t number = 1; std::getline(file, text); ++number) {
    std::string_view line = text;
    if (number == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.find_first_not_of(" \t") == std::string_view::npos || line.starts_with('#')) continue;
    const Place place{path, number};
    if (!header) {
      header = read_header(place, line, dataset.x_name);
      continue;
    }
    const Point point = read_row(place, line, *header, kind);
    if (header->seeds && !seen.insert({point.flops, point.x, *point.seed}).second)
      place.fail(
          1, fmt::format("{} {} with seed {} appears twice", dataset.x_name, point.x, *point.seed));
    curves[point.flops].points.push_back(point);
  }
  if (!header) throw UserError(fmt::format("{}: is empty; a header and rows are expected", path));
  if (curves.empty()) throw UserError(fmt::format("{}: has a header but no rows", path));
  for (auto& [flops, curve] : curves) {
    curve.flops = flops;
    if (curves.size() > 1) curve.label = fmt::format("flops {:g}", *flops);
    if (header->seeds) curve.missing = missing_seeds(curve);
    dataset.curves.push_back(std::move(curve));
  }
  return dataset;
}

}  // namespace fulcrum::apps
