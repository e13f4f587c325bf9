#include "framework/config/difference.h"

#include <fmt/format.h>

#include <map>
#include <set>

namespace fulcrum::config {
namespace {

using Leaves = std::map<std::string, std::string>;

void flatten(const Value& value, const std::string& path, Leaves& leaves) {
  if (value.kind != Value::Kind::map) {
    std::string text = emit_yaml(value);
    text.erase(text.find_last_not_of('\n') + 1);
    leaves[path] = text;
    return;
  }
  for (const Value::Entry& entry : value.entries)
    flatten(entry.value, path.empty() ? entry.key : path + "." + entry.key, leaves);
}

std::string value_of(const Leaves& leaves, const std::string& key) {
  const auto at = leaves.find(key);
  return at == leaves.end() ? "nothing" : at->second;
}

}  // namespace

std::string Difference::text() const { return fmt::format("{} was {}, is {}", key, before, after); }

std::vector<Difference> differences(const Value& before, const Value& after) {
  Leaves was, is;
  flatten(before, "", was);
  flatten(after, "", is);
  std::set<std::string> keys;
  for (const Leaves* leaves : {&was, &is})
    for (const auto& leaf : *leaves) keys.insert(leaf.first);
  std::vector<Difference> found;
  for (const std::string& key : keys) {
    Difference difference{key, value_of(was, key), value_of(is, key)};
    if (difference.before != difference.after) found.push_back(std::move(difference));
  }
  return found;
}

}  // namespace fulcrum::config
