#pragma once
// From a file to one merged tree: `extends:` layers files, overrides come last.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "framework/config/value.h"

namespace fulcrum::config {

// Reads `path`. A top-level `extends: other.yaml`, or a list of files, names files relative to the
// one that says it; they are merged in order and the file itself is merged over them. A file that
// extends itself by any path is an error.
Value load_file(const std::filesystem::path& path);

// Applies "train.steps=100": the value is YAML, the maps on the way are made when absent. The
// reader reports a path that does not exist, at the position "--set".
void apply_override(Value& root, const std::string& assignment);

// load_file, then every override in order.
Value load(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

// 32 hexadecimal digits that name a text (FNV-1a of 128 bits), the same on every machine.
std::string hash_text(const std::string& text);

}  // namespace fulcrum::config
