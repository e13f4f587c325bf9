#pragma once
// A YAML document as a plain tree in which every value knows its place, also after a merge.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fulcrum::config {

// Lines and columns count from 1. Without a line the source is named alone ("--set"); without a
// source there is no position (a value that the program made).
struct Position {
  std::shared_ptr<const std::string> source;
  int line = 0;
  int column = 0;

  std::string text() const;  // "file:line:column", "--set" or ""
};

struct Value {
  enum class Kind { null, scalar, sequence, map };
  struct Entry;

  Kind kind = Kind::null;
  std::string text;     // of a scalar, as written, without quotes
  bool quoted = false;  // a quoted scalar is text, never a number, a truth value or null
  std::vector<Value> items;
  std::vector<Entry> entries;  // of a map, in the order of the file
  Position position;

  static Value scalar(std::string text, bool quoted = false);
  static Value sequence();
  static Value map();

  const Value* find(std::string_view key) const;  // null when absent or when this is no map
  Value* find(std::string_view key);
  Value& put(std::string_view key, Value value);  // adds or replaces

  std::string describe() const;  // for "found …": the scalar itself, "a list", "a map", "nothing"
};

struct Value::Entry {
  std::string key;
  Position position;  // of the key
  Value value;
};

// Parses one document. Syntax errors, duplicate keys, keys that are no scalars and further
// documents are UserErrors that begin with source:line:column. An empty document is an empty map.
Value parse_yaml(const std::string& text, const std::string& source);

// The same for a value typed on the command line; every position is `source` alone.
Value parse_inline(const std::string& text, const std::string& source);

// Maps merge key by key; anything else in `over` replaces what `base` has. Positions stay.
Value merge(Value base, Value over);

// Block style for maps, flow style for lists; a fixed point of parse_yaml and emit_yaml.
std::string emit_yaml(const Value& value);

}  // namespace fulcrum::config
