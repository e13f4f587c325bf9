#pragma once
// Which files the inputs of `fulcrum prepare` name.

#include <string>
#include <string_view>
#include <vector>

namespace fulcrum::data {

// Shell patterns over paths: `*` and `?` within a name, `**` across folders, `[abc]`, `[a-z]`,
// `[!a]`.
bool matches_glob(std::string_view pattern, std::string_view path);

// The files of the inputs, in the order of the inputs and sorted by bytes within each. An input is
//   - "-", standard input, which stays as it is;
//   - a file;
//   - a folder: the regular files below it whose path within the folder (or name, when the pattern
//   has no '/') matches `glob`, or with
//     an empty `glob` those that look like text: .txt .text .md .rst .pod .jsonl .ndjson .dict and
//     manual pages, each also .gz .zst .dz;
//   - a pattern, which may have `**`.
// Symbolic links inside folders are not followed (manual pages use them as second names). UserError
// names an input that does not exist or matches nothing.
std::vector<std::string> list_files(const std::vector<std::string>& inputs,
                                    const std::string& glob);

// The path without .gz, .zst or .dz.
std::string_view without_compression(std::string_view path);
// "…/man1/ls.1", compressed or not.
bool is_manual_page(std::string_view path);

}  // namespace fulcrum::data
