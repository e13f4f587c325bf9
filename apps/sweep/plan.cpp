#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>

#include "apps/sweep/manifest.h"
#include "apps/train/config_parser.h"
#include "framework/core/error.h"

namespace fulcrum::apps {
namespace {

using Choice = std::vector<const AxisValue*>;  // one value of each axis

bool excluded(const SweepSpec& spec, const Choice& choice) {
  const auto matches = [&](const std::pair<std::string, AxisValue>& wanted) {
    for (std::size_t i = 0; i < spec.axes.size(); ++i) {
      if (spec.axes[i].key != wanted.first) continue;
      const AxisValue& value = *choice[i];
      return value.numeric && wanted.second.numeric ? value.number == wanted.second.number
                                                    : value.text == wanted.second.text;
    }
    return false;
  };
  return std::any_of(spec.exclude.begin(), spec.exclude.end(), [&](const auto& pattern) {
    return std::all_of(pattern.begin(), pattern.end(), matches);
  });
}

// The last part of each key; the whole key where that is ambiguous.
std::vector<std::string> short_names(const std::vector<Axis>& axes) {
  std::map<std::string, int> uses;
  const auto last = [](const std::string& key) { return key.substr(key.rfind('.') + 1); };
  for (const Axis& axis : axes) ++uses[last(axis.key)];
  std::vector<std::string> names;
  for (const Axis& axis : axes)
    names.push_back(uses[last(axis.key)] > 1 ? axis.key : last(axis.key));
  return names;
}

PlannedPoint make_point(const SweepSpec& spec, const std::vector<std::string>& names,
                        const Choice& choice) {
  PlannedPoint point;
  point.overrides = spec.set;
  std::vector<std::string> name, curve;
  for (std::size_t i = 0; i < spec.axes.size(); ++i) {
    const Axis& axis = spec.axes[i];
    const std::string part = fmt::format("{}={}", names[i], choice[i]->text);
    point.overrides.push_back(fmt::format("{}={}", axis.key, choice[i]->text));
    name.push_back(part);
    if (axis.key == spec.fit.x)
      point.x = choice[i]->number;
    else if (axis.key == spec.fit.seed && choice[i]->numeric)
      point.seed = static_cast<std::int64_t>(choice[i]->number);
    else if (axis.values.size() > 1)
      curve.push_back(part);
  }
  point.name = fmt::format("{}", fmt::join(name, " "));
  point.curve = fmt::format("{}", fmt::join(curve, " "));
  return point;
}

std::vector<Choice> combinations(const std::vector<Axis>& axes) {
  std::vector<Choice> all = {{}};
  for (const Axis& axis : axes) {
    std::vector<Choice> longer;
    for (const Choice& choice : all) {
      for (const AxisValue& value : axis.values) {
        longer.push_back(choice);
        longer.back().push_back(&value);
      }
    }
    all = std::move(longer);
  }
  return all;
}

// An axis would silently win over them.
void check_overrides(const SweepSpec& spec) {
  for (const std::string& assignment : spec.set) {
    const std::string key = assignment.substr(0, assignment.find('='));
    if (spec.axis(key) == nullptr) continue;
    throw UserError(fmt::format("{}: set: {}: is an axis of the sweep, whose values count",
                                spec.path.string(), key));
  }
}

}  // namespace

ResolvedConfig resolve_experiment(const std::filesystem::path& base,
                                  const std::vector<std::string>& overrides) {
  const ExperimentConfig experiment = load_experiment(base, overrides);
  return {to_yaml(experiment), config_hash(experiment)};
}

Manifest plan_sweep(const SweepSpec& spec, const std::filesystem::path& dir,
                    const Resolver& resolve) {
  check_overrides(spec);
  Manifest manifest{dir, spec.path.string(), spec.fit, spec.execution, spec.slurm, {}};
  const std::vector<std::string> names = short_names(spec.axes);
  std::map<std::string, std::string> seen;
  for (const Choice& choice : combinations(spec.axes)) {
    if (excluded(spec, choice)) continue;
    PlannedPoint point = make_point(spec, names, choice);
    try {
      ResolvedConfig resolved = resolve(spec.base, point.overrides);
      point.hash = std::move(resolved.hash);
      if (spec.execution.threads > 0) {
        std::vector<std::string> placed = point.overrides;
        placed.push_back(fmt::format("threads={}", spec.execution.threads));
        resolved = resolve(spec.base, placed);
      }
      point.config = std::move(resolved.yaml);
    } catch (const IoError&) {
      throw;
    } catch (const UserError& error) {
      throw UserError(
          fmt::format("{}: point {}: {}", spec.path.string(), point.name, error.what()));
    }
    point.id = point.hash.substr(0, 12);
    const auto [other, fresh] = seen.emplace(point.id, point.name);
    if (!fresh)
      throw UserError(fmt::format(
          "{}: the points {} and {} resolve to the same configuration; an axis has no effect",
          spec.path.string(), other->second, point.name));
    manifest.points.push_back(std::move(point));
  }
  if (manifest.points.empty())
    throw UserError(fmt::format("{}: exclude: leaves no point", spec.path.string()));
  return manifest;
}

}  // namespace fulcrum::apps
