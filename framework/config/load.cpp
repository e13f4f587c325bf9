#include "framework/config/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "framework/core/error.h"

namespace fulcrum::config {
namespace {

namespace fs = std::filesystem;

std::string read_text(const fs::path& path, const std::string& wanted_by) {
  const auto fail = [&](const std::string& why) {
    throw UserError(fmt::format(
        "{}{}: {}", wanted_by.empty() ? "" : wanted_by + ": extends: ", path.string(), why));
  };
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) fail("is a directory; a YAML file is expected");
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(fmt::format("cannot be read: {}", std::strerror(errno)));
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::vector<const Value*> extended_names(const Value& extends) {
  std::vector<const Value*> names;
  if (extends.kind == Value::Kind::scalar) names.push_back(&extends);
  for (const auto& item : extends.items) names.push_back(&item);
  for (const auto* name : names) {
    if (name->kind != Value::Kind::scalar || name->text.empty())
      throw UserError(
          fmt::format("{}: extends: expects a file name or a list of file names; found {}",
                      name->position.text(), name->describe()));
  }
  if (extends.kind == Value::Kind::map || extends.kind == Value::Kind::null)
    throw UserError(
        fmt::format("{}: extends: expects a file name or a list of file names; found {}",
                    extends.position.text(), extends.describe()));
  return names;
}

Value load_layers(const fs::path& path, const std::string& wanted_by, std::vector<fs::path>& open) {
  std::error_code ignored;
  fs::path identity = fs::weakly_canonical(path, ignored);
  if (identity.empty()) identity = path;
  if (std::find(open.begin(), open.end(), identity) != open.end()) {
    std::string chain;
    for (const auto& file : open) chain += file.filename().string() + " -> ";
    throw UserError(fmt::format("{}: extends: a file may not extend itself; found {}{}", wanted_by,
                                chain, path.filename().string()));
  }
  Value own = parse_yaml(read_text(path, wanted_by), path.string());
  if (own.kind != Value::Kind::map)
    throw UserError(
        fmt::format("{}: expects a map of keys; found {}", own.position.text(), own.describe()));
  const Value* extends = own.find("extends");
  if (!extends) return own;

  open.push_back(identity);
  Value base = Value::map();
  for (const auto* name : extended_names(*extends)) {
    const fs::path file = path.parent_path() / name->text;
    base = merge(std::move(base), load_layers(file, name->position.text(), open));
  }
  open.pop_back();
  own.entries.erase(std::find_if(own.entries.begin(), own.entries.end(),
                                 [](const auto& entry) { return entry.key == "extends"; }));
  return merge(std::move(base), std::move(own));
}

}  // namespace

Value load_file(const fs::path& path) {
  std::vector<fs::path> open;
  return load_layers(path, "", open);
}

void apply_override(Value& root, const std::string& assignment) {
  const auto equals = assignment.find('=');
  const std::string path = assignment.substr(0, equals);
  if (equals == std::string::npos || path.empty() || path.front() == '.' || path.back() == '.' ||
      path.find("..") != std::string::npos)
    throw UserError(fmt::format(
        "--set: expects key.path=value, for example train.steps=100; found {}", assignment));
  Value value = parse_inline(assignment.substr(equals + 1), "--set");
  Value* map = &root;
  std::size_t begin = 0;
  for (std::size_t dot; (dot = path.find('.', begin)) != std::string::npos; begin = dot + 1) {
    const std::string key = path.substr(begin, dot - begin);
    Value* next = map->find(key);
    if (!next || next->kind == Value::Kind::null) {
      Value made = Value::map();
      made.position = value.position;
      next = &map->put(key, std::move(made));
    }
    if (next->kind != Value::Kind::map)
      throw UserError(fmt::format("--set: {}: a map is expected before .{}; found {}",
                                  path.substr(0, dot), path.substr(dot + 1), next->describe()));
    map = next;
  }
  map->put(path.substr(begin), std::move(value));
}

Value load(const fs::path& path, const std::vector<std::string>& overrides) {
  Value root = load_file(path);
  for (const auto& assignment : overrides) apply_override(root, assignment);
  return root;
}

std::string hash_text(const std::string& text) {
  using Wide = unsigned __int128;
  constexpr Wide kPrime = (Wide{1} << 88) + 0x13b;
  Wide hash = (Wide{0x6c62272e07bb0142} << 64) + 0x62b821756295c58d;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * kPrime;
  return fmt::format("{:016x}{:016x}", static_cast<std::uint64_t>(hash >> 64),
                     static_cast<std::uint64_t>(hash));
}

}  // namespace fulcrum::config
