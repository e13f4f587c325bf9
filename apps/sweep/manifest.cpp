#include "apps/sweep/manifest.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "framework/config/difference.h"
#include "framework/core/error.h"
#include "framework/core/file.h"

namespace fulcrum::apps {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr int kFormat = 1;

Json execution_json(const Execution& e) {
  return {{"ranks", e.ranks},
          {"threads", e.threads},
          {"jobs", e.jobs},
          {"retries", e.retries},
          {"timeout_minutes", e.timeout_minutes},
          {"grace_seconds", e.grace_seconds},
          {"command", e.command}};
}

Execution execution_of(const Json& json) {
  Execution e;
  e.ranks = json.at("ranks");
  e.threads = json.at("threads");
  e.jobs = json.at("jobs");
  e.retries = json.at("retries");
  e.timeout_minutes = json.at("timeout_minutes");
  e.grace_seconds = json.at("grace_seconds");
  e.command = json.at("command").get<std::vector<std::string>>();
  return e;
}

Json to_json(const Manifest& manifest) {
  Json json;
  json["format"] = kFormat;
  json["spec"] = manifest.spec_path;
  json["fit"] = {{"x", manifest.fit.x},
                 {"kind", manifest.fit.kind == FitKind::u_curve ? "u-curve" : "log-linear"},
                 {"loss", manifest.fit.loss},
                 {"seed", manifest.fit.seed}};
  json["execution"] = execution_json(manifest.execution);
  json["points"] = Json::array();
  for (const PlannedPoint& point : manifest.points) {
    Json row = {{"id", point.id},
                {"hash", point.hash},
                {"name", point.name},
                {"overrides", point.overrides},
                {"x", point.x}};
    if (point.seed) row["seed"] = *point.seed;
    if (!point.curve.empty()) row["curve"] = point.curve;
    json["points"].push_back(std::move(row));
  }
  return json;
}

Manifest from_json(const Json& json, const fs::path& dir) {
  Manifest manifest;
  manifest.dir = dir;
  if (json.at("format") != kFormat)
    throw UserError(fmt::format("{}: format {} is not one that this version reads ({})",
                                (dir / "manifest.json").string(), json.at("format").dump(),
                                kFormat));
  manifest.spec_path = json.at("spec");
  const Json& fit = json.at("fit");
  manifest.fit = {fit.at("x"), fit.at("kind") == "u-curve" ? FitKind::u_curve : FitKind::log_linear,
                  fit.at("loss"), fit.at("seed")};
  manifest.execution = execution_of(json.at("execution"));
  for (const Json& row : json.at("points")) {
    PlannedPoint point;
    point.id = row.at("id");
    point.hash = row.at("hash");
    point.name = row.at("name");
    point.overrides = row.at("overrides").get<std::vector<std::string>>();
    point.x = row.at("x");
    if (row.contains("seed")) point.seed = row["seed"].get<std::int64_t>();
    point.curve = row.value("curve", "");
    manifest.points.push_back(std::move(point));
  }
  return manifest;
}

// Keys whose values differ between two resolved configurations.
std::string differences(const std::string& before, const std::string& after) {
  std::vector<std::string> found;
  for (const config::Difference& difference : config::differences(
           config::parse_yaml(before, "earlier"), config::parse_yaml(after, "now"))) {
    if (difference.key != "threads" && difference.key != "run_dir")
      found.push_back(difference.text());
  }
  if (found.empty()) return "its configuration hash";
  return fmt::format("{}", fmt::join(found, "; "));
}

}  // namespace

void write_manifest(const Manifest& manifest) {
  std::error_code error;
  for (const PlannedPoint& point : manifest.points) {
    fs::create_directories(manifest.folder(point), error);
    if (error)
      throw IoError(
          fmt::format("{}: cannot be made: {}", manifest.folder(point).string(), error.message()));
    replace_file(manifest.folder(point) / "config.yaml", point.config);
  }
  replace_file(manifest.dir / "manifest.json", to_json(manifest).dump(2) + "\n");
}

bool has_manifest(const fs::path& dir) { return fs::exists(dir / "manifest.json"); }

Manifest read_manifest(const fs::path& dir) {
  const fs::path path = dir / "manifest.json";
  if (!has_manifest(dir))
    throw UserError(fmt::format("{}: is no sweep folder: it has no manifest.json", dir.string()));
  try {
    Manifest manifest = from_json(Json::parse(read_text(path)), dir);
    for (PlannedPoint& point : manifest.points) {
      const fs::path config = manifest.folder(point) / "config.yaml";
      if (fs::exists(config)) point.config = read_text(config);
    }
    return manifest;
  } catch (const Json::exception& error) {
    throw IoError(fmt::format("{}: is not a manifest: {}", path.string(), error.what()));
  }
}

std::string changes(const Manifest& earlier, const Manifest& planned) {
  std::map<std::string, const PlannedPoint*> before;
  for (const PlannedPoint& point : earlier.points) before[point.name] = &point;
  std::string text;
  std::set<std::string> kept;
  for (const PlannedPoint& point : planned.points) {
    const auto found = before.find(point.name);
    if (found == before.end()) {
      text += fmt::format("  new point {}\n", point.name);
      continue;
    }
    kept.insert(point.name);
    if (found->second->hash != point.hash)
      text +=
          fmt::format("  {}: {}\n", point.name, differences(found->second->config, point.config));
  }
  for (const PlannedPoint& point : earlier.points)
    if (!kept.contains(point.name)) text += fmt::format("  {} is planned no more\n", point.name);
  return text;
}

}  // namespace fulcrum::apps
