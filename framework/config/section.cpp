#include "framework/config/section.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "framework/config/scalar.h"
#include "framework/config/suggest.h"
#include "framework/core/error.h"

namespace fulcrum::config {
namespace {

template <class T>
constexpr bool kIsNumber = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;

template <class T>
std::string range_problem(const T& value, const Range& range) {
  if constexpr (kIsNumber<T>) {
    if (!range.contains(static_cast<double>(value)))
      return fmt::format("out of range; found {}; allowed: {}", value, range.text());
  }
  return "";
}

// Each reads one value and returns the rule that is broken, or nothing.
template <class T>
std::string read_field(const Value& value, const Range& range, T& field) {
  if (!parse_scalar(value, field))
    return fmt::format("expects {}; found {}{}", type_name<T>(), value.describe(), hint<T>(value));
  return range_problem(field, range);
}

template <class T>
std::string read_field(const Value& value, const Range& range, std::optional<T>& field) {
  field.reset();
  if (value.kind == Value::Kind::null) return "";
  return read_field(value, range, field.emplace());
}

template <class T>
std::string read_field(const Value& value, const Range& range, std::vector<T>& field) {
  if (value.kind != Value::Kind::sequence)
    return fmt::format("expects a list, each element {}; found {}", type_name<T>(),
                       value.describe());
  field.clear();
  for (const auto& item : value.items) {
    T element{};
    const std::string problem = read_field(item, range, element);
    if (!problem.empty()) return fmt::format("element {}: {}", field.size(), problem);
    field.push_back(std::move(element));
  }
  return "";
}

template <class T>
Value write_field(const T& field) {
  return format_scalar(field);
}

template <class T>
Value write_field(const std::optional<T>& field) {
  return field ? format_scalar(*field) : Value();
}

template <class T>
Value write_field(const std::vector<T>& field) {
  Value list = Value::sequence();
  for (const auto& element : field) list.items.push_back(format_scalar(element));
  return list;
}

template <class T>
std::string written_problem(const T& field, const Range& range) {
  return range_problem(field, range);
}

template <class T>
std::string written_problem(const std::optional<T>& field, const Range& range) {
  return field ? range_problem(*field, range) : "";
}

template <class T>
std::string written_problem(const std::vector<T>& field, const Range& range) {
  for (const auto& element : field) {
    const std::string problem = range_problem(element, range);
    if (!problem.empty()) return problem;
  }
  return "";
}

}  // namespace

bool Range::contains(double x) const {
  return std::isfinite(x) && (open_min ? x > min : x >= min) && (open_max ? x < max : x <= max);
}

std::string Range::text() const {
  if (!std::isfinite(max))
    return std::isfinite(min) ? fmt::format("{} {}", open_min ? "above" : "at least", min)
                              : "finite numbers";
  if (!std::isfinite(min)) return fmt::format("{} {}", open_max ? "below" : "at most", max);
  return fmt::format("{}{}, {}{}", open_min ? '(' : '[', min, max, open_max ? ')' : ']');
}

Section::Section(const Value* input, Value* output, std::string path)
    : input_(input), output_(output), path_(std::move(path)) {
  if (input_ && input_->kind != Value::Kind::map) {
    fail("", fmt::format("expects a map of keys; found {}", input_->describe()));
  }
}

std::string Section::path_of(std::string_view key) const {
  if (path_.empty()) return std::string(key);
  return key.empty() ? path_ : fmt::format("{}.{}", path_, key);
}

std::string Section::position_of(std::string_view key) const {
  if (!input_) return "";
  const Value* map = input_;
  Position position = input_->position;
  while (!key.empty()) {
    const auto dot = std::min(key.find('.'), key.size());
    const auto entry = std::find_if(map->entries.begin(), map->entries.end(),
                                    [&](const auto& e) { return e.key == key.substr(0, dot); });
    if (entry == map->entries.end()) break;
    key.remove_prefix(std::min(dot + 1, key.size()));
    map = &entry->value;
    position = key.empty() ? map->position : entry->position;
  }
  return position.text();
}

void Section::fail(std::string_view key, const std::string& message) const {
  std::string text = position_of(key);
  for (const auto& part : {path_of(key), message}) {
    if (part.empty()) continue;
    if (!text.empty()) text += ": ";
    text += part;
  }
  throw UserError(text);
}

const Value* Section::declare(std::string_view key) {
  known_.emplace_back(key);
  return input_ ? input_->find(key) : nullptr;
}

template <class T>
void Section::optional(std::string_view key, T& field, const Range& range) {
  const Value* value = declare(key);
  if (output_) {
    const std::string problem = written_problem(field, range);
    if (!problem.empty()) fail(key, problem);
    output_->put(key, write_field(field));
  } else if (value) {
    const std::string problem = read_field(*value, range, field);
    if (!problem.empty()) fail(key, problem);
  }
}

template <class T>
void Section::required(std::string_view key, T& field, const Range& range) {
  if (input_ && !input_->find(key) && missing_.empty()) missing_ = key;
  optional(key, field, range);
}

std::size_t Section::choose(std::string_view key, const std::vector<std::string>& names,
                            std::size_t now) {
  const Value* value = declare(key);
  if (output_) output_->put(key, Value::scalar(names[now], true));
  if (!value) return now;
  const auto found = std::find(names.begin(), names.end(), value->text);
  if (value->kind != Value::Kind::scalar || found == names.end()) {
    const std::string near = nearest(value->text, names);
    fail(key, fmt::format("unknown choice; found {}; allowed: {}{}", value->describe(),
                          fmt::join(names, ", "), near.empty() ? "" : "; did you mean " + near));
  }
  return static_cast<std::size_t>(found - names.begin());
}

bool Section::declare_optional(std::string_view key, bool present) {
  if (input_) {
    const Value* value = input_->find(key);
    present = value && value->kind != Value::Kind::null;
  }
  if (present) return true;  // section() declares it
  known_.emplace_back(key);
  if (output_) output_->put(key, Value());
  return false;
}

void Section::section(std::string_view key, const std::function<void(Section&)>& body) {
  const Value* value = declare(key);
  Value absent = Value::map();
  if (input_ && (!value || value->kind == Value::Kind::null)) {
    absent.position = value ? value->position : input_->position;
    value = &absent;
  }
  Value* made = output_ ? &output_->put(key, Value::map()) : nullptr;
  Section nested(output_ ? nullptr : value, made, path_of(key));
  body(nested);
  nested.close();
}

void Section::close() {
  if (closed_) return;
  closed_ = true;
  if (!input_) return;
  for (const auto& entry : input_->entries) {
    if (std::find(known_.begin(), known_.end(), entry.key) != known_.end()) continue;
    throw UserError(fmt::format("{}: {}: unknown key{}", entry.position.text(), path_of(entry.key),
                                suggestion(entry.key, known_)));
  }
  if (!missing_.empty()) fail(missing_, "a required key is missing");
}

#define FULCRUM_BIND(...)                                                                     \
  template void Section::required<__VA_ARGS__>(std::string_view, __VA_ARGS__&, const Range&); \
  template void Section::optional<__VA_ARGS__>(std::string_view, __VA_ARGS__&, const Range&);
FULCRUM_BIND(bool)
FULCRUM_BIND(int)
FULCRUM_BIND(std::int64_t)
FULCRUM_BIND(std::uint64_t)
FULCRUM_BIND(double)
FULCRUM_BIND(std::string)
FULCRUM_BIND(std::optional<double>)
FULCRUM_BIND(std::vector<std::int64_t>)
FULCRUM_BIND(std::vector<double>)
FULCRUM_BIND(std::vector<std::string>)
#undef FULCRUM_BIND

}  // namespace fulcrum::config
