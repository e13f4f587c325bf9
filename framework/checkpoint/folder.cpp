#include "framework/checkpoint/folder.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <string_view>

#include "framework/checkpoint/shard_file.h"
#include "framework/core/checksum.h"
#include "framework/core/file.h"

namespace fulcrum::checkpoint {
namespace {

using Json = nlohmann::ordered_json;
constexpr std::string_view kPrefix = "step-";

// The step of "step-120"; -1 for any other name.
std::int64_t step_of(const std::string& name) {
  if (name.rfind(kPrefix, 0) != 0) return -1;
  std::int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto [stopped, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  return error == std::errc() && stopped == end ? step : -1;
}

std::string damaged_tensors(const std::filesystem::path& path) {
  std::string names;
  try {
    for (const Placement& placement : placements_of(path)) {
      if (!intact(path, placement)) names += (names.empty() ? "" : ", ") + placement.shard.name;
    }
  } catch (const IoError& error) {
    return fmt::format("its metadata cannot be read ({})", error.what());
  }
  return names.empty() ? "the damage lies outside of the tensors" : "damaged: tensor " + names;
}

}  // namespace

std::filesystem::path step_folder(const std::filesystem::path& directory, std::int64_t step) {
  return directory / fmt::format("{}{}", kPrefix, step);
}

std::filesystem::path unfinished_folder(const std::filesystem::path& directory, std::int64_t step) {
  return directory / fmt::format("{}{}.tmp", kPrefix, step);
}

bool is_step_folder(const std::filesystem::path& path) {
  return step_of(path.filename().string()) >= 0;
}

std::vector<StepFolder> step_folders(const std::filesystem::path& directory) {
  std::vector<StepFolder> folders;
  std::error_code error;
  for (std::filesystem::directory_iterator it(directory, error), end; !error && it != end;
       it.increment(error)) {
    const std::int64_t step = step_of(it->path().filename().string());
    if (step >= 0) folders.push_back({step, it->path()});
  }
  std::sort(folders.begin(), folders.end(),
            [](const StepFolder& a, const StepFolder& b) { return a.step < b.step; });
  return folders;
}

void write_marker(const std::filesystem::path& folder, const Marker& marker) {
  Json files = Json::array();
  for (const FileEntry& entry : marker.files) {
    files.push_back(
        {{"file", entry.file}, {"bytes", entry.bytes}, {"xxh64", checksum_text(entry.checksum)}});
  }
  const Json json{{"format", kFormat}, {"step", marker.step}, {"files", files}};
  replace_file(folder / kMarker, json.dump(2) + "\n");
}

Marker read_marker(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kMarker;
  if (!std::filesystem::exists(path)) {
    throw IoError(fmt::format("{}: not a complete checkpoint: it has no file '{}'", folder.string(),
                              kMarker));
  }
  Marker marker;
  try {
    const Json json = Json::parse(read_text(path));
    const std::int64_t format = json.at("format");
    if (format != kFormat) {
      throw IoError(fmt::format("{}: checkpoint format {}; this program reads format {}",
                                path.string(), format, kFormat));
    }
    marker.step = json.at("step");
    for (const Json& file : json.at("files")) {
      const std::string sum = file.at("xxh64");
      marker.files.push_back(
          {file.at("file"), file.at("bytes"), std::stoull(sum, nullptr, 16), {}});
    }
  } catch (const IoError&) {
    throw;
  } catch (const std::exception& error) {
    throw IoError(fmt::format("{}: damaged: {}", path.string(), error.what()));
  }
  for (const FileEntry& entry : marker.files) {
    std::error_code error;
    const auto bytes = std::filesystem::file_size(folder / entry.file, error);
    const std::string file = (folder / entry.file).string();
    if (error) throw IoError(fmt::format("{}: {}", file, error.message()));
    if (static_cast<std::int64_t>(bytes) != entry.bytes) {
      throw IoError(
          fmt::format("{}: damaged: {} bytes, but {} were written", file, bytes, entry.bytes));
    }
  }
  return marker;
}

void verify_file(const std::filesystem::path& folder, const FileEntry& entry) {
  const std::filesystem::path path = folder / entry.file;
  const std::uint64_t found = checksum_file(path);
  if (found == entry.checksum) return;
  const std::string what = entry.file.rfind("rank-", 0) == 0
                               ? damaged_tensors(path)
                               : "the damage is in the index of tensors";
  throw IoError(fmt::format("{}: checksum {}, but {} was written; {}", path.string(),
                            checksum_text(found), checksum_text(entry.checksum), what));
}

std::string damage_of(const std::filesystem::path& folder) {
  try {
    const Marker marker = read_marker(folder);
    for (const FileEntry& entry : marker.files) verify_file(folder, entry);
    return "";
  } catch (const IoError& error) {
    return error.what();
  }
}

}  // namespace fulcrum::checkpoint
