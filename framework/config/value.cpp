#include "framework/config/value.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <sstream>

#include "framework/core/error.h"

namespace fulcrum::config {
namespace {

// Aliases may contain themselves, or grow without bounds.
constexpr int kMaxDepth = 64;
constexpr int kMaxValues = 1 << 20;

class Converter {
 public:
  Converter(const std::string& source, bool has_lines)
      : source_(std::make_shared<const std::string>(source)), has_lines_(has_lines) {}

  Position position(const YAML::Mark& mark) const {
    if (!has_lines_) return {source_, 0, 0};
    return {source_, mark.is_null() ? 1 : mark.line + 1, mark.is_null() ? 1 : mark.column + 1};
  }

  Value convert(const YAML::Node& node, int depth = 0) {
    Value value;
    value.position = position(node.Mark());
    if (depth > kMaxDepth)
      throw UserError(
          fmt::format("{}: values are nested more than {} deep", value.position.text(), kMaxDepth));
    if (++values_ > kMaxValues)
      throw UserError(fmt::format("{}: more than {} values", value.position.text(), kMaxValues));
    if (node.IsScalar()) {
      value.kind = Value::Kind::scalar;
      value.text = node.Scalar();
      value.quoted = node.Tag() == "!";
    } else if (node.IsSequence()) {
      value.kind = Value::Kind::sequence;
      for (const auto& item : node) value.items.push_back(convert(item, depth + 1));
    } else if (node.IsMap()) {
      value.kind = Value::Kind::map;
      for (const auto& pair : node) add_entry(value, pair.first, pair.second, depth);
    }
    return value;
  }

 private:
  void add_entry(Value& map, const YAML::Node& key, const YAML::Node& item, int depth) {
    const Position where = position(key.Mark());
    if (!key.IsScalar()) throw UserError(where.text() + ": a key must be a name");
    for (const auto& entry : map.entries) {
      if (entry.key == key.Scalar())
        throw UserError(fmt::format("{}: {}: duplicate key; the first stands at {}", where.text(),
                                    entry.key, entry.position.text()));
    }
    map.entries.push_back({key.Scalar(), where, convert(item, depth + 1)});
    // An absent value has its mark on a later line.
    Value& value = map.entries.back().value;
    if (value.kind == Value::Kind::null) value.position = where;
  }

  std::shared_ptr<const std::string> source_;
  bool has_lines_;
  int values_ = 0;
};

std::vector<YAML::Node> load_all(const std::string& text, const Converter& converter) {
  try {
    return YAML::LoadAll(text);
  } catch (const YAML::Exception& error) {
    throw UserError(
        fmt::format("{}: not valid YAML: {}", converter.position(error.mark).text(), error.msg));
  }
}

Value parse(const std::string& text, Converter converter) {
  const auto documents = load_all(text, converter);
  if (documents.size() > 1)
    throw UserError(fmt::format("{}: one document is allowed in a file; found {}",
                                converter.position(documents[1].Mark()).text(), documents.size()));
  if (documents.empty()) {
    Value nothing;
    nothing.position = converter.position(YAML::Mark::null_mark());
    return nothing;
  }
  return converter.convert(documents.front());
}

bool is_plain(const std::string& text) {
  if (text.empty() || text == "true" || text == "false" || text == "null") return false;
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (!is_letter(text[0]) && text[0] != '/' && text[0] != '_') return false;
  return std::all_of(text.begin(), text.end(), [&](char c) {
    return is_letter(c) || (c >= '0' && c <= '9') || c == '_' || c == '-' || c == '.' || c == '/';
  });
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string emit_scalar(const Value& value) {
  if (value.kind == Value::Kind::null) return "null";
  return value.quoted && !is_plain(value.text) ? quote(value.text) : value.text;
}

void emit_flow(const Value& value, std::string& out) {
  if (value.kind == Value::Kind::sequence) {
    out += '[';
    for (std::size_t i = 0; i < value.items.size(); ++i) {
      if (i > 0) out += ", ";
      emit_flow(value.items[i], out);
    }
    out += ']';
  } else if (value.kind == Value::Kind::map) {
    out += '{';
    for (std::size_t i = 0; i < value.entries.size(); ++i) {
      if (i > 0) out += ", ";
      out += emit_scalar(Value::scalar(value.entries[i].key, true)) + ": ";
      emit_flow(value.entries[i].value, out);
    }
    out += '}';
  } else {
    out += emit_scalar(value);
  }
}

void emit_block(const Value& map, int indent, std::string& out) {
  for (const auto& entry : map.entries) {
    out.append(static_cast<std::size_t>(indent), ' ');
    out += emit_scalar(Value::scalar(entry.key, true)) + ":";
    if (entry.value.kind == Value::Kind::map && !entry.value.entries.empty()) {
      out += '\n';
      emit_block(entry.value, indent + 2, out);
    } else {
      out += ' ';
      emit_flow(entry.value, out);
      out += '\n';
    }
  }
}

}  // namespace

std::string Position::text() const {
  if (!source) return "";
  return line == 0 ? *source : fmt::format("{}:{}:{}", *source, line, column);
}

Value Value::scalar(std::string text, bool quoted) {
  Value value;
  value.kind = Kind::scalar;
  value.text = std::move(text);
  value.quoted = quoted;
  return value;
}

Value Value::sequence() {
  Value value;
  value.kind = Kind::sequence;
  return value;
}

Value Value::map() {
  Value value;
  value.kind = Kind::map;
  return value;
}

const Value* Value::find(std::string_view key) const {
  for (const auto& entry : entries)
    if (entry.key == key) return &entry.value;
  return nullptr;
}

Value* Value::find(std::string_view key) {
  return const_cast<Value*>(static_cast<const Value*>(this)->find(key));
}

Value& Value::put(std::string_view key, Value value) {
  if (Value* present = find(key)) return *present = std::move(value);
  const Position where = value.position;
  entries.push_back({std::string(key), where, std::move(value)});
  return entries.back().value;
}

std::string Value::describe() const {
  switch (kind) {
    case Kind::null:
      return "nothing";
    case Kind::sequence:
      return "a list";
    case Kind::map:
      return "a map";
    case Kind::scalar:
      break;
  }
  return quoted ? quote(text) : text;
}

Value parse_yaml(const std::string& text, const std::string& source) {
  Value value = parse(text, Converter(source, true));
  if (value.kind == Value::Kind::null) value.kind = Value::Kind::map;
  return value;
}

Value parse_inline(const std::string& text, const std::string& source) {
  return parse(text, Converter(source, false));
}

Value merge(Value base, Value over) {
  if (base.kind != Value::Kind::map || over.kind != Value::Kind::map) return over;
  base.position = over.position;
  for (auto& entry : over.entries) {
    const auto present = std::find_if(base.entries.begin(), base.entries.end(),
                                      [&](const auto& b) { return b.key == entry.key; });
    if (present == base.entries.end()) {
      base.entries.push_back(std::move(entry));
    } else {
      present->position = entry.position;
      present->value = merge(std::move(present->value), std::move(entry.value));
    }
  }
  return base;
}

std::string emit_yaml(const Value& value) {
  std::string out;
  if (value.kind == Value::Kind::map && !value.entries.empty()) {
    emit_block(value, 0, out);
  } else {
    emit_flow(value, out);
    out += '\n';
  }
  return out;
}

}  // namespace fulcrum::config
