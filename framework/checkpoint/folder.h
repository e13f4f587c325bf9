#pragma once
// The folder of one checkpoint: its name, its marker file and its state.

#include <filesystem>
#include <string>
#include <vector>

#include "framework/checkpoint/types.h"

namespace fulcrum::checkpoint {

inline constexpr const char* kMarker = "complete";
inline constexpr const char* kLatest = "latest";

std::filesystem::path step_folder(const std::filesystem::path& directory, std::int64_t step);
// Where a save of that step gathers its files before it is complete.
std::filesystem::path unfinished_folder(const std::filesystem::path& directory, std::int64_t step);
// True when the last part of the path is step-N.
bool is_step_folder(const std::filesystem::path& path);

struct StepFolder {
  std::int64_t step = 0;
  std::filesystem::path path;
};
// The finished checkpoints of a folder, oldest first. Empty when the folder does not exist.
std::vector<StepFolder> step_folders(const std::filesystem::path& directory);

// What `complete` holds.
struct Marker {
  std::int64_t step = 0;
  std::vector<FileEntry> files;  // without their shards
};

void write_marker(const std::filesystem::path& folder, const Marker& marker);

// Reads the marker and compares the sizes of all files with it. IoError says what is missing or
// cut.
Marker read_marker(const std::filesystem::path& folder);

// Compares a file with the checksum of its entry. IoError names the file and the tensors whose
// bytes changed.
void verify_file(const std::filesystem::path& folder, const FileEntry& entry);

// Why a checkpoint cannot be used, after reading every byte of it; empty when it is good.
std::string damage_of(const std::filesystem::path& folder);

}  // namespace fulcrum::checkpoint
