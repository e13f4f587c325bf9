#pragma once
// What a checkpoint is made of.
//
//   DIR/latest                 symbolic link to the newest complete checkpoint
//   DIR/step-N/rank-R.h5       the shards that rank R held, each a dataset under the tensor's name
//   DIR/step-N/index.h5        every tensor whole, as a virtual dataset over the rank files
//   DIR/step-N/complete        JSON: the files, their sizes and checksums; written last
//   DIR/step-N.tmp/            a save under way, or one that was killed
//
// Tensor names are paths: "parameters/blocks.0.norm.weight", "optimizer.adamw.first_moment/…",
// "buffers/…"; a slash makes an HDF5 group. Shards are ranges of rows of the leading dimension.
// Checksums are XXH64.

#include <cstdint>
#include <string>
#include <vector>

#include "framework/checkpoint/hdf5.h"
#include "framework/core/tensor.h"

namespace fulcrum::checkpoint {

inline constexpr std::int64_t kFormat = 1;
inline constexpr const char* kParameters = "parameters/";
inline constexpr const char* kBuffers = "buffers/";

// Named integers, reals and texts (step, seeds, the resolved configuration, the sampler's
// position).
using hdf5::Attributes;
using hdf5::AttributeValue;

// Rows first_row..first_row+value.dim(0) of a tensor, on any device. At least one dimension.
struct TensorEntry {
  std::string name;
  Tensor value;
  Shape global_shape;
  std::int64_t first_row = 0;

  // A tensor that is held whole.
  static TensorEntry whole(std::string name, const Tensor& value) {
    return {std::move(name), value, value.shape(), 0};
  }
};

// One shard as written.
struct ShardRecord {
  std::string name;
  DType dtype = DType::f32;
  Shape global_shape;
  std::int64_t first_row = 0;
  std::int64_t rows = 0;
  std::uint64_t checksum = 0;
};

// One file as written. The ranks gather these (as text) at the rank that finalizes.
struct FileEntry {
  std::string file;  // name inside the checkpoint's folder
  std::int64_t bytes = 0;
  std::uint64_t checksum = 0;
  std::vector<ShardRecord> shards;

  std::string to_text() const;  // JSON
  static FileEntry from_text(const std::string& text);
};

// The names of all dtypes are those of name_of; throws IoError for others.
DType dtype_from_name(const std::string& name);

}  // namespace fulcrum::checkpoint
