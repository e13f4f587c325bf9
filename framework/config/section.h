#pragma once
// Binds the keys of a YAML map to the fields of a struct, in both directions: one function that
// lists the keys reads a configuration strictly, and writes it back with every key.
//
//   void bind(config::Section& s, DogConfig& dog) {
//     s.required("name", dog.name);
//     s.optional("legs", dog.legs, config::between(0, 4));
//     s.choice("coat", dog.coat, {{"short", Coat::short_hair}, {"long", Coat::long_hair}});
//     s.section("kennel", [&](config::Section& k) { k.optional("width", dog.kennel_width); });
//     s.close();  // reports unknown and missing keys, before any rule looks at the values
//     s.rule(dog.legs % 2 == 0, "legs", fmt::format("must be even; found {}", dog.legs));
//   }
//   const auto dog = config::read<DogConfig>(config::load("dog.yaml", {"legs=2"}), bind);
//   const std::string text = config::emit_yaml(config::write(dog, bind));
//
// Every message reads `file:line:column: key.path: rule; found …; allowed …; did you mean …`.

#include <functional>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "framework/config/value.h"

namespace fulcrum::config {

struct Range {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool open_min = false;  // min itself is not allowed
  bool open_max = false;

  bool contains(double x) const;
  std::string text() const;  // "at least 1", "(0, 1]"
};

inline Range any() { return {}; }
inline Range at_least(double min) { return {.min = min}; }
inline Range above(double min) { return {.min = min, .open_min = true}; }
inline Range between(double min, double max) { return {.min = min, .max = max}; }

class Section {
 public:
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  // T: bool, int, int64_t, uint64_t, double, std::string, std::optional<double>,
  // std::vector<int64_t>, std::vector<double>, std::vector<std::string>. Numbers are those of
  // YAML 1.2 and must be finite; the range holds for each element of a list. An optional key that
  // is absent leaves the field as it is.
  template <class T>
  void required(std::string_view key, T& field, const Range& range = any());
  template <class T>
  void optional(std::string_view key, T& field, const Range& range = any());

  template <class E>
  void choice(std::string_view key, E& field,
              std::initializer_list<std::pair<const char*, E>> names) {
    std::vector<std::string> allowed;
    std::size_t index = 0;
    for (const auto& [name, value] : names) {
      if (value == field) index = allowed.size();
      allowed.emplace_back(name);
    }
    index = choose(key, allowed, index);
    field = (names.begin() + index)->second;
  }

  // A nested map. Absent: the body sees an empty one, so its required keys are missed.
  void section(std::string_view key, const std::function<void(Section&)>& body);

  // A nested map that may be absent or null.
  template <class T>
  void optional_section(std::string_view key, std::optional<T>& field,
                        const std::function<void(Section&, T&)>& body) {
    if (!declare_optional(key, field.has_value())) {
      field.reset();
      return;
    }
    if (!field) field.emplace();
    section(key, [&](Section& nested) { body(nested, *field); });
  }

  // Declares that every key is bound. Throws for the first unknown key, then for a missing one.
  void close();

  // A rule over several keys: throws at the position of `key` (a path below this section) unless it
  // holds. Call after close.
  void rule(bool holds, std::string_view key, const std::string& message) const {
    if (!holds) fail(key, message);
  }
  [[noreturn]] void fail(std::string_view key, const std::string& message) const;

  // Used by read and write.
  Section(const Value* input, Value* output, std::string path);

 private:
  const Value* declare(std::string_view key);
  bool declare_optional(std::string_view key, bool present);
  std::size_t choose(std::string_view key, const std::vector<std::string>& names, std::size_t now);
  std::string path_of(std::string_view key) const;
  std::string position_of(std::string_view key) const;

  const Value* input_;
  Value* output_;
  std::string path_;
  std::vector<std::string> known_;
  std::string missing_;  // first required key that is absent
  bool closed_ = false;
};

// `path` prefixes the keys in messages: the place of this map in a larger one.
template <class T, class Bind>
T read(const Value& root, Bind&& bind, T value = {}, const std::string& path = "") {
  Section section(&root, nullptr, path);
  bind(section, value);
  section.close();
  return value;
}

// Also checks every rule, so that it validates structs that a program filled.
template <class T, class Bind>
Value write(T value, Bind&& bind, const std::string& path = "") {
  Value root = Value::map();
  Section section(nullptr, &root, path);
  bind(section, value);
  section.close();
  return root;
}

}  // namespace fulcrum::config
