#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "apps/sweep/fit/output.h"
#include "framework/core/error.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::apps;

namespace {

struct TemporaryCsv {
  explicit TemporaryCsv(const std::string& text)
      : path((std::filesystem::temp_directory_path() / fmt::format("fulcrum-csv-{}.csv", getpid()))
                 .string()) {
    std::ofstream(path, std::ios::binary) << text;
  }
  ~TemporaryCsv() { std::filesystem::remove(path); }
  std::string path;
};

std::string error_of(const std::string& text, FitKind kind = FitKind::u_curve) {
  const TemporaryCsv file(text);
  try {
    read_csv(file.path, kind);
  } catch (const UserError& error) {
    const std::string message = error.what();
    REQUIRE(message.starts_with(file.path + ":"));
    return message.substr(file.path.size() + 1);
  }
  return "no error";
}

}  // namespace

TEST_CASE("a table of points is read strictly", "[unit][sweep]") {
  CHECK(error_of("rho,los\n0.5,1\n").starts_with("1:5: unknown column 'los'"));
  CHECK(error_of("rho\n0.5\n").starts_with("1:1: column 'loss' is missing"));
  CHECK(error_of("rho,loss,rho\n").starts_with("1:10: column 'rho' appears twice"));
  CHECK(error_of("rho,loss\n0.5,abc\n").starts_with("2:5: loss must be a number; found 'abc'"));
  CHECK(error_of("rho,loss\n0.5,\n").starts_with("2:5: loss must be a number; found ''"));
  CHECK(error_of("rho,loss\n0.5,nan\n").starts_with("2:5: loss must be finite"));
  CHECK(error_of("rho,loss\n0.5, 1.0x\n").starts_with("2:6: loss must be a number; found '1.0x'"));
  CHECK(error_of("rho,loss\n\n75,1\n")
            .starts_with("3:1: rho is a share and must lie in (0, 1]; found 75"));
  CHECK(error_of("rho,loss\n0,1\n").starts_with("2:1: rho is a share"));
  CHECK(
      error_of("rho,loss\n0.5,1,2\n").starts_with("2:7: the header has 2 columns, this row has 3"));
  CHECK(error_of("rho,loss\n0.5\n").starts_with("2:1: the header has 2 columns, this row has 1"));
  CHECK(error_of("rho,loss,seed\n0.5,1,1.5\n").starts_with("2:7: seed must be an integer"));
  CHECK(error_of("rho,loss,flops\n0.5,1,-1\n").starts_with("2:7: flops must be positive"));
  CHECK(error_of("rho,loss,seed\n0.5,1,0\n0.5,2,0\n")
            .starts_with("3:1: rho 0.5 with seed 0 appears twice"));
  CHECK(error_of("slots,loss\n").find("--log-linear") != std::string::npos);
  CHECK(error_of("slots,loss\n-1,2\n", FitKind::log_linear)
            .starts_with("2:1: slots must not be negative"));
  CHECK(error_of("") == " is empty; a header and rows are expected");
  CHECK(error_of("# only a comment\nrho,loss\n") == " has a header but no rows");
  CHECK_THROWS_AS(read_csv("/nonexistent/points.csv", FitKind::u_curve), UserError);
}

TEST_CASE("a table of points may have comments, blanks, any column order and several budgets",
          "[unit][sweep]") {
  const TemporaryCsv file(
      "\xEF\xBB\xBF# from a run\r\nloss, seed ,rho,flops\r\n\r\n1.5,0, 0.5 "
      ",2e20\r\n1.4,1,0.5,2e20\r\n"
      "1.3,0,0.7,2e20\r\n1.2,0,1.0,6e20\r\n");
  const Dataset data = read_csv(file.path, FitKind::u_curve);
  REQUIRE(data.curves.size() == 2);
  CHECK(data.curves[0].flops == 2e20);
  CHECK(data.curves[0].points.size() == 3);
  CHECK(data.curves[0].points[0].x == 0.5);
  CHECK(data.curves[0].points[0].loss == 1.5);
  CHECK(data.curves[1].label == "flops 6e+20");
  CHECK(data.curves[0].missing.empty());  // seed 1 ran at one rho only
}

TEST_CASE("a seed that one rho lacks is missing there", "[unit][sweep]") {
  const TemporaryCsv file("rho,loss,seed\n0.5,1,0\n0.5,1,1\n0.7,1,0\n1,1,0\n1,1,1\n");
  const Dataset data = read_csv(file.path, FitKind::u_curve);
  REQUIRE(data.curves[0].missing.size() == 1);
  CHECK(data.curves[0].missing[0].x == 0.7);
  CHECK(data.curves[0].missing[0].seed == 1);
}

TEST_CASE("the JSON of a fit claims no optimum at an edge", "[unit][sweep]") {
  const TemporaryCsv file("rho,loss\n0.4,2.3\n0.5,2.2\n0.6,2.13\n0.8,2.05\n0.9,2.03\n1,2.02\n");
  const auto json = to_json(fit_dataset(read_csv(file.path, FitKind::u_curve)));
  CHECK(json["edge"] == "high");
  CHECK(json["physical"]["rho"].is_null());
  CHECK(json["parabola"]["rho"].is_null());
  CHECK(json["parabola"]["interval"].is_null());
  CHECK(json["physical"]["minimum"]["rho"] == 1.0);
  CHECK(json["points"].size() == 6);
  CHECK(json["missing"].empty());
}

TEST_CASE("the text of a fit names budgets, verdict and missing runs", "[unit][sweep]") {
  const TemporaryCsv file(
      "rho,loss,seed,flops\n0.4,2.2,0,1e15\n0.6,2.1,0,1e15\n0.8,2.05,0,1e15\n1,2.15,0,1e15\n0.4,2."
      "2,1,1e15\n"
      "0.6,2.1,1,1e15\n0.8,2.06,1,1e15\n0.4,2.0,0,2e15\n");
  const std::string text = to_text(fit_dataset(read_csv(file.path, FitKind::u_curve)));
  CHECK(text.find("flops 1e+15") != std::string::npos);
  CHECK(text.find("missing (1): rho 1 seed 1 (no row)") != std::string::npos);
  CHECK(text.find("Optimum by the parabola: rho* = ") != std::string::npos);
  CHECK(text.find("Too few values of rho for a fit.") != std::string::npos);
}
