#include "apps/sweep/report.h"

#include "tests/apps/sweep/fit/published.h"
#include "tests/catch.h"

using namespace fulcrum::apps;

namespace {

FitReport report_of(std::vector<Point> points, std::vector<MissingPoint> missing = {}) {
  return fit_dataset(
      {"points.csv", FitKind::u_curve, "rho", {{"", {}, std::move(points), std::move(missing)}}},
      {.draws = 50});
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++n;
  return n;
}

}  // namespace

TEST_CASE("the report is one file that loads nothing", "[unit][sweep]") {
  const std::string html =
      html_report(report_of(fulcrum::testing::published_6e20(), {{0.3, 1, "failed <&>"}}), "A <b>",
                  {{"ranks", "2"}});
  for (const char* loader : {"http", "<script", "src=", "url(", "@import", "<link"})
    CHECK(html.find(loader) == std::string::npos);
  CHECK(html.find("A &lt;b&gt;") != std::string::npos);
  CHECK(html.find("failed &lt;&amp;&gt;") != std::string::npos);
  CHECK(html.find("Missing: 1 of 11 planned runs") != std::string::npos);
  CHECK(html.find("prefers-color-scheme: dark") != std::string::npos);
  CHECK(html.find("class='band'") != std::string::npos);
  CHECK(html.find("ρ* = 8") != std::string::npos);
  CHECK(html.find("nan") == std::string::npos);
  CHECK(count(html, "<svg") == count(html, "</svg>"));
}

TEST_CASE("every run is a mark of the figure", "[unit][sweep]") {
  std::vector<Point> points;
  for (const double rho : {0.4, 0.6, 0.8, 1.0})
    for (std::int64_t seed = 0; seed < 3; ++seed)
      points.push_back({rho, 2.0 + (rho - 0.7) * (rho - 0.7) + 0.01 * seed, seed, {}});
  const FitReport report = report_of(points);
  const std::string svg = figure_svg(report.curves[0], "rho");
  CHECK(count(svg, "class='run'") == 12);
  CHECK(count(svg, "class='mean'") == 4);
  CHECK(count(svg, "class='spread'") == 4);
}

TEST_CASE("an edge is named in the figure and no optimum is drawn", "[unit][sweep]") {
  const std::string svg = figure_svg(
      report_of(fulcrum::testing::points_of({0.4, 0.6, 0.8, 0.9, 1.0}, {2.4, 2.2, 2.1, 2.07, 2.05}))
          .curves[0],
      "rho");
  CHECK(svg.find("lowest at the high edge: no optimum claimed") != std::string::npos);
  CHECK(svg.find("class='best'") == std::string::npos);
}

TEST_CASE("reports of nothing and of one point hold together", "[unit][sweep]") {
  CHECK(html_report(report_of({}), "empty", {}).find("No point is done.") != std::string::npos);
  const std::string html = html_report(report_of({{0.5, 2.0, {}, {}}}), "one", {});
  CHECK(html.find("Too few values of ρ") != std::string::npos);
  CHECK(html.find("nan") == std::string::npos);
  CHECK(html.find("inf") == std::string::npos);
}
