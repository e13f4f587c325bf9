#pragma once
// index.h5: every tensor whole under its name, as a virtual dataset over the rank files of the same
// folder (relative names: a folder that is moved keeps working), and the checkpoint's attributes.

#include <filesystem>
#include <string>
#include <vector>

#include "framework/checkpoint/types.h"

namespace fulcrum::checkpoint {

// A range of rows and the dataset that holds it.
struct ShardLocation {
  std::string file;  // name inside the folder
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
};

// A tensor as the index knows it. Shards are in the order of their rows and cover them exactly
// once.
struct TensorInfo {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::vector<ShardLocation> shards;
};

// Merges the shards of all files, by name. Throws InternalError naming the tensor when its shards
// disagree about dtype or shape, overlap, or leave rows out.
std::vector<TensorInfo> merge_shards(const std::vector<FileEntry>& files);

// Writes FOLDER/index.h5 and flushes it to the disk.
FileEntry write_index_file(const std::filesystem::path& folder,
                           const std::vector<TensorInfo>& tensors, const Attributes& attributes);

struct Index {
  std::vector<TensorInfo> tensors;  // by name
  Attributes attributes;
};

Index read_index_file(const std::filesystem::path& file);

}  // namespace fulcrum::checkpoint
