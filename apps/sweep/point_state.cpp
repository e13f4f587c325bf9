#include "apps/sweep/point_state.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>

#include "framework/core/error.h"
#include "framework/core/file.h"

namespace fulcrum::apps {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

constexpr std::array<const char*, 5> kNames = {"pending", "running", "done", "failed", "timed out"};

}  // namespace

const char* name_of(PointStatus status) { return kNames[static_cast<std::size_t>(status)]; }

std::string utc_now() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

std::string host_name() {
  char name[256] = {};
  return gethostname(name, sizeof name - 1) == 0 ? name : "unknown";
}

PointState read_state(const fs::path& folder) {
  const fs::path path = folder / "state.json";
  PointState state;
  if (!fs::exists(path)) return state;
  try {
    const Json json = Json::parse(read_text(path));
    const std::string status = json.at("status");
    for (std::size_t i = 0; i < kNames.size(); ++i)
      if (status == kNames[i]) state.status = static_cast<PointStatus>(i);
    state.attempts = json.at("attempts");
    state.seconds = json.at("seconds");
    state.heartbeat = json.at("heartbeat");
    state.message = json.value("message", "");
    state.pid = json.value("pid", std::int64_t{0});
    state.host = json.value("host", "");
  } catch (const Json::exception& error) {
    throw IoError(fmt::format("{}: is not a state: {}", path.string(), error.what()));
  }
  return state;
}

void write_state(const fs::path& folder, PointState state) {
  state.heartbeat = utc_now();
  Json json = {{"status", name_of(state.status)},
               {"attempts", state.attempts},
               {"seconds", state.seconds},
               {"heartbeat", state.heartbeat}};
  if (!state.message.empty()) json["message"] = state.message;
  if (state.status == PointStatus::running) {
    json["pid"] = state.pid;
    json["host"] = state.host;
  }
  replace_file(folder / "state.json", json.dump(2) + "\n");
}

double read_result(const Manifest& manifest, const PlannedPoint& point) {
  const fs::path path = manifest.run_dir(point) / "result.json";
  if (!fs::exists(path)) throw IoError(fmt::format("{}: was not written", path.string()));
  try {
    const Json json = Json::parse(read_text(path));
    const std::string hash = json.at("config_hash");
    if (hash != point.hash)
      throw ForeignResult(fmt::format(
          "{}: is the result of another configuration: config_hash {}; the point {} has "
          "{}",
          path.string(), hash, point.name, point.hash));
    const Json& loss = json.at(manifest.fit.loss);
    if (!loss.is_number() || !std::isfinite(loss.get<double>()))
      throw IoError(fmt::format("{}: {} is not a finite number: {}", path.string(),
                                manifest.fit.loss, loss.dump()));
    return loss;
  } catch (const Json::exception& error) {
    throw IoError(fmt::format("{}: is not a result: {}", path.string(), error.what()));
  }
}

PointState checked_state(const Manifest& manifest, const PlannedPoint& point) {
  PointState state = read_state(manifest.folder(point));
  if (state.status != PointStatus::done) return state;
  try {
    read_result(manifest, point);
  } catch (const ForeignResult& error) {
    state.status = PointStatus::failed;
    state.message = fmt::format("{}; move {} away and --resume to train it", error.what(),
                                manifest.run_dir(point).string());
  } catch (const IoError& error) {
    state.status = PointStatus::pending;
    state.message = error.what();
  }
  return state;
}

Dataset read_sweep(const Manifest& manifest) {
  Dataset dataset{manifest.dir.string(),
                  manifest.fit.kind,
                  manifest.fit.kind == FitKind::u_curve ? "rho" : "slots",
                  {}};
  std::map<std::string, std::size_t> index;
  for (const PlannedPoint& point : manifest.points) {
    const auto [found, fresh] = index.emplace(point.curve, dataset.curves.size());
    if (fresh) dataset.curves.push_back({point.curve, {}, {}, {}});
    CurveData& curve = dataset.curves[found->second];
    const PointState state = read_state(manifest.folder(point));
    if (state.status != PointStatus::done) {
      curve.missing.push_back({point.x, point.seed, name_of(state.status)});
      continue;
    }
    try {
      curve.points.push_back({point.x, read_result(manifest, point), point.seed, {}});
    } catch (const IoError& error) {
      curve.missing.push_back({point.x, point.seed, error.what()});
    }
  }
  return dataset;
}

}  // namespace fulcrum::apps
