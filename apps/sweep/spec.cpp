#include "apps/sweep/spec.h"

#include <fmt/format.h>

#include <algorithm>

#include "framework/config/load.h"
#include "framework/config/scalar.h"
#include "framework/config/section.h"
#include "framework/core/error.h"

namespace fulcrum::apps {
namespace {

using config::Value;

[[noreturn]] void fail(const Value& at, const std::string& key, const std::string& message) {
  throw UserError(fmt::format("{}: {}: {}", at.position.text(), key, message));
}

AxisValue axis_value(const Value& value) {
  AxisValue axis;
  axis.text = config::emit_yaml(value);
  while (!axis.text.empty() && axis.text.back() == '\n') axis.text.pop_back();
  const bool single = value.kind == Value::Kind::sequence && value.items.size() == 1;
  axis.numeric = config::parse_scalar(single ? value.items[0] : value, axis.number);
  return axis;
}

bool same(const AxisValue& a, const AxisValue& b) {
  return a.numeric && b.numeric ? a.number == b.number : a.text == b.text;
}

// Takes a key out of the map, so that the strict reader sees only what it knows.
std::optional<Value> take(Value& root, std::string_view key) {
  const auto found = std::find_if(root.entries.begin(), root.entries.end(),
                                  [&](const Value::Entry& entry) { return entry.key == key; });
  if (found == root.entries.end()) return std::nullopt;
  Value value = std::move(found->value);
  root.entries.erase(found);
  return value;
}

std::vector<Axis> read_axes(const Value& root, const std::optional<Value>& value) {
  if (!value) fail(root, "axes", "is missing; it maps keys of the experiment to lists of values");
  if (value->kind != Value::Kind::map || value->entries.empty())
    fail(*value, "axes",
         fmt::format("expects a map of keys to lists of values; found {}", value->describe()));
  std::vector<Axis> axes;
  for (const Value::Entry& entry : value->entries) {
    const std::string key = "axes." + entry.key;
    if (entry.value.kind != Value::Kind::sequence || entry.value.items.empty())
      fail(entry.value, key,
           fmt::format("expects a list of values; found {}", entry.value.describe()));
    Axis axis{entry.key, {}};
    for (const Value& item : entry.value.items) {
      const AxisValue parsed = axis_value(item);
      for (const AxisValue& other : axis.values)
        if (same(parsed, other)) fail(item, key, fmt::format("{} appears twice", parsed.text));
      axis.values.push_back(parsed);
    }
    axes.push_back(std::move(axis));
  }
  return axes;
}

void read_exclude(const std::optional<Value>& value, SweepSpec& spec) {
  if (!value) return;
  if (value->kind != Value::Kind::sequence)
    fail(*value, "exclude", fmt::format("expects a list of maps; found {}", value->describe()));
  for (const Value& item : value->items) {
    if (item.kind != Value::Kind::map || item.entries.empty())
      fail(item, "exclude",
           fmt::format("expects maps of axes to values; found {}", item.describe()));
    auto& pattern = spec.exclude.emplace_back();
    for (const Value::Entry& entry : item.entries) {
      const Axis* axis = spec.axis(entry.key);
      if (axis == nullptr) fail(entry.value, "exclude", fmt::format("{} is no axis", entry.key));
      const AxisValue parsed = axis_value(entry.value);
      if (std::none_of(axis->values.begin(), axis->values.end(),
                       [&](const AxisValue& v) { return same(v, parsed); }))
        fail(entry.value, "exclude", fmt::format("{} is no value of {}", parsed.text, entry.key));
      pattern.emplace_back(entry.key, parsed);
    }
  }
}

void bind_execution(config::Section& s, Execution& e) {
  s.optional("ranks", e.ranks, config::at_least(1));
  s.optional("threads", e.threads, config::at_least(0));
  s.optional("jobs", e.jobs, config::at_least(0));
  s.optional("retries", e.retries, config::at_least(0));
  s.optional("timeout_minutes", e.timeout_minutes, config::at_least(0));
  s.optional("grace_seconds", e.grace_seconds, config::at_least(0));
  s.optional("command", e.command);
}

void bind_spec(config::Section& s, SweepSpec& spec, std::string& base) {
  s.required("base", base);
  s.optional("set", spec.set);
  bind_execution(s, spec.execution);
  s.section("fit", [&](config::Section& f) {
    f.optional("x", spec.fit.x);
    f.choice("kind", spec.fit.kind,
             {{"u-curve", FitKind::u_curve}, {"log-linear", FitKind::log_linear}});
    f.optional("loss", spec.fit.loss);
    f.optional("seed", spec.fit.seed);
  });
  s.section("slurm", [&](config::Section& l) {
    l.optional("partition", spec.slurm.partition);
    l.optional("account", spec.slurm.account);
    l.optional("time", spec.slurm.time);
    l.optional("parallel", spec.slurm.parallel, config::at_least(1));
    l.optional("requeues", spec.slurm.requeues, config::at_least(0));
    l.optional("options", spec.slurm.options);
  });
  s.close();
  s.rule(!spec.execution.command.empty(), "command", "must not be empty");
  const Axis* x = spec.axis(spec.fit.x);
  s.rule(x != nullptr, "fit.x", fmt::format("must be one of the axes; found {}", spec.fit.x));
  for (const AxisValue& value : x->values) {
    s.rule(value.numeric, "fit.x",
           fmt::format("the values of its axis must be numbers; found {}", value.text));
    s.rule(spec.fit.kind != FitKind::u_curve || (value.number > 0.0 && value.number <= 1.0),
           "fit.x", fmt::format("a u-curve needs values in (0, 1]; found {}", value.text));
  }
}

}  // namespace

const Axis* SweepSpec::axis(std::string_view key) const {
  for (const Axis& axis : axes)
    if (axis.key == key) return &axis;
  return nullptr;
}

SweepSpec load_sweep(const std::filesystem::path& path) {
  Value root = config::load(path);
  SweepSpec spec;
  spec.path = path;
  const std::optional<Value> exclude = take(root, "exclude");
  const std::optional<Value> axes = take(root, "axes");
  spec.axes = read_axes(root, axes);
  read_exclude(exclude, spec);
  std::string base;
  spec = config::read<SweepSpec>(
      root, [&](config::Section& s, SweepSpec& out) { bind_spec(s, out, base); }, spec);
  spec.base = path.parent_path() / base;
  return spec;
}

}  // namespace fulcrum::apps
