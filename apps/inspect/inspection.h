#pragma once
// What `fulcrum inspect` finds out about a checkpoint or about one of its files.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "framework/checkpoint/statistics.h"
#include "framework/checkpoint/types.h"

namespace fulcrum::apps {

struct InspectedTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  std::int64_t shards = 1;     // files that hold its rows
  std::int64_t first_row = 0;  // of a shard file
  checkpoint::Statistics statistics;
};

struct Inspection {
  std::filesystem::path path;
  bool whole = true;                         // a checkpoint; false: one rank's file
  std::vector<checkpoint::FileEntry> files;  // without their shards
  checkpoint::Attributes attributes;
  std::vector<InspectedTensor> tensors;  // by name
  bool verified = false;                 // every byte was compared with its checksum
};

// path: a folder of checkpoints, one checkpoint, its index.h5 (the same as its folder), or a rank
// file. Reads every element once for the statistics; with verify every file once more for its
// checksum. UserError when path is none of these, IoError when it is damaged.
Inspection inspect(const std::filesystem::path& path, bool verify);

nlohmann::ordered_json to_json(const Inspection& inspection);
std::string to_text(const Inspection& inspection);

}  // namespace fulcrum::apps
