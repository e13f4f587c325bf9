#pragma once
// The plan of a sweep, and its file. DIR/manifest.json is written before the first point starts and
// names every point:
//
//   DIR/manifest.json              plan: points, fit, execution
//   DIR/lock                       held by the driver
//   DIR/points/ID/config.yaml      resolved configuration of a point
//   DIR/points/ID/state.json       see point_state.h
//   DIR/points/ID/log.txt          output of its attempts
//   DIR/points/ID/run/             its run folder; run/result.json is the result
//   DIR/fit.json, DIR/report.html  at the end
//
// A point's identity is the hash of its resolved configuration, so a changed base file or axis
// value makes another point. The result of a run carries the same hash and counts only with it.

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "apps/sweep/spec.h"

namespace fulcrum::apps {

struct PlannedPoint {
  std::string id;    // first 12 digits of the hash; names the folder
  std::string hash;  // of the resolved configuration
  std::string name;  // "rho=0.85 seed=0"
  std::vector<std::string> overrides;
  double x = 0.0;
  std::optional<std::int64_t> seed;
  std::string
      curve;  // what sets its curve apart: the other axes, "steps=400"; empty for a single curve
  std::string config;  // resolved YAML; in its own file, not in the manifest
};

struct Manifest {
  std::filesystem::path dir;
  std::string spec_path;
  FitSpec fit;
  Execution execution;
  SlurmSpec slurm;
  std::vector<PlannedPoint> points;

  std::filesystem::path folder(const PlannedPoint& point) const {
    return dir / "points" / point.id;
  }
  std::filesystem::path run_dir(const PlannedPoint& point) const { return folder(point) / "run"; }
};

struct ResolvedConfig {
  std::string yaml;
  std::string hash;
};
// Resolves the base experiment with overrides; throws UserError for what `train` would refuse.
using Resolver =
    std::function<ResolvedConfig(const std::filesystem::path&, const std::vector<std::string>&)>;

// Resolves by the experiment parser.
ResolvedConfig resolve_experiment(const std::filesystem::path& base,
                                  const std::vector<std::string>& overrides);

// All points of the spec, in the order of the axes (the last varies fastest). With
// execution.threads above 0 the stored configurations carry that number; it is no part of a point's
// identity. A point that does not resolve is a UserError that names it; so are two points with one
// configuration, and a spec without points.
Manifest plan_sweep(const SweepSpec& spec, const std::filesystem::path& dir,
                    const Resolver& resolve);

void write_manifest(const Manifest& manifest);  // and every point's config.yaml
Manifest read_manifest(const std::filesystem::path& dir);
bool has_manifest(const std::filesystem::path& dir);

// How the planned points differ from those of an earlier manifest, one difference a line; empty
// when they are the same.
std::string changes(const Manifest& earlier, const Manifest& planned);

}  // namespace fulcrum::apps
