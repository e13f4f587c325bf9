#include "data/file_list.h"

#include <algorithm>
#include <filesystem>

#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

namespace fs = std::filesystem;

bool ends_with_any(std::string_view path, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](std::string_view ending) { return path.ends_with(ending); });
}

bool looks_like_text(std::string_view path) {
  return is_manual_page(path) ||
         ends_with_any(without_compression(path),
                       {".txt", ".text", ".md", ".rst", ".pod", ".jsonl", ".ndjson", ".dict"});
}

// Regular files below a folder, sorted.
template <class Accept>
void walk(const fs::path& folder, Accept&& accept, std::vector<std::string>& files) {
  const std::size_t first = files.size();
  std::error_code error;
  fs::recursive_directory_iterator it(folder, fs::directory_options::skip_permission_denied, error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    if (it->symlink_status().type() == fs::file_type::regular && accept(it->path())) {
      files.push_back(it->path().string());
    }
  }
  if (error) throw IoError(fmt::format("{}: cannot list: {}", folder.string(), error.message()));
  std::sort(files.begin() + static_cast<std::ptrdiff_t>(first), files.end());
}

// Matches the set at the start of `pattern` ("[a-z]…") and moves past it; false leaves `pattern`
// unspecified.
bool match_set(std::string_view& pattern, char c) {
  std::size_t i = 1;
  const bool negated = i < pattern.size() && (pattern[i] == '!' || pattern[i] == '^');
  if (negated) ++i;
  bool found = false;
  for (const std::size_t first = i; i < pattern.size() && (pattern[i] != ']' || i == first); ++i) {
    if (i + 2 < pattern.size() && pattern[i + 1] == '-' && pattern[i + 2] != ']') {
      found |= pattern[i] <= c && c <= pattern[i + 2];
      i += 2;
    } else {
      found |= pattern[i] == c;
    }
  }
  if (i == pattern.size()) return false;
  pattern.remove_prefix(i + 1);
  return found != negated && c != '/';
}

}  // namespace

bool matches_glob(std::string_view pattern, std::string_view path) {
  while (!pattern.empty()) {
    if (pattern[0] == '*') {
      const bool across = pattern.starts_with("**");
      pattern.remove_prefix(across ? 2 : 1);
      // "**/" also matches no folder at all.
      if (across && pattern.starts_with('/') && matches_glob(pattern.substr(1), path)) return true;
      for (std::size_t n = 0;; ++n) {
        if (matches_glob(pattern, path.substr(n))) return true;
        if (n == path.size() || (!across && path[n] == '/')) return false;
      }
    }
    if (path.empty()) return false;
    if (pattern[0] == '[') {
      if (!match_set(pattern, path[0])) return false;
    } else {
      if (pattern[0] == '?' ? path[0] == '/' : pattern[0] != path[0]) return false;
      pattern.remove_prefix(1);
    }
    path.remove_prefix(1);
  }
  return path.empty();
}

std::string_view without_compression(std::string_view path) {
  for (const std::string_view ending : {".gz", ".zst", ".dz"}) {
    if (path.ends_with(ending)) return path.substr(0, path.size() - ending.size());
  }
  return path;
}

bool is_manual_page(std::string_view path) {
  const fs::path page(without_compression(path));
  const std::string section = page.extension().string();
  return section.size() >= 2 && (section[1] >= '1' && section[1] <= '9') &&
         page.parent_path().filename().string().starts_with("man");
}

std::vector<std::string> list_files(const std::vector<std::string>& inputs,
                                    const std::string& glob) {
  std::vector<std::string> files;
  for (const std::string& input : inputs) {
    const std::size_t before = files.size();
    if (input == "-" || (fs::exists(input) && !fs::is_directory(input))) {
      files.push_back(input);
    } else if (fs::is_directory(input)) {
      const bool by_name = glob.find('/') == std::string::npos;
      walk(
          input,
          [&](const fs::path& path) {
            if (glob.empty()) return looks_like_text(path.string());
            return matches_glob(
                glob, by_name ? path.filename().string() : path.lexically_relative(input).string());
          },
          files);
      if (files.size() == before) {
        throw UserError(fmt::format(
            "{}: no file in this folder {}", input,
            glob.empty() ? "looks like text; --glob '*' takes all" : "matches --glob " + glob));
      }
    } else if (const std::size_t wild = input.find_first_of("*?["); wild != std::string::npos) {
      const std::size_t slash = input.rfind('/', wild);
      const fs::path root = slash == std::string::npos ? "." : input.substr(0, slash + 1);
      const std::string pattern = slash == std::string::npos ? "./" + input : input;
      if (fs::is_directory(root)) {
        walk(
            root, [&](const fs::path& path) { return matches_glob(pattern, path.string()); },
            files);
      }
      if (files.size() == before) throw UserError(fmt::format("{}: matches no file", input));
    } else {
      throw UserError(fmt::format("{}: no such file or folder", input));
    }
  }
  return files;
}

}  // namespace fulcrum::data
