#pragma once
// Reads a checkpoint back, on any number of ranks and with any split of its tensors.
//
// What the user can mend (a wrong path, a model of other shapes) throws UserError; damage throws
// IoError that names the file, the tensor where one is known, and the older checkpoints that are
// good. Nothing falls back to another checkpoint by itself.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "framework/checkpoint/folder.h"
#include "framework/checkpoint/index_file.h"
#include "framework/checkpoint/shard_file.h"
#include "framework/checkpoint/types.h"

namespace fulcrum::checkpoint {

class CheckpointReader {
 public:
  // path: a folder of checkpoints (its `latest` is opened) or the folder of one. Checks that the
  // checkpoint is complete and that all files have their sizes.
  explicit CheckpointReader(const std::filesystem::path& path);

  const std::filesystem::path& folder() const { return folder_; }
  std::int64_t step() const { return marker_.step; }
  // All files with their sizes and checksums, without their shards.
  const std::vector<FileEntry>& files() const { return marker_.files; }
  const Attributes& attributes() const { return index_.attributes; }
  std::int64_t integer(const std::string& attribute) const;
  double real(const std::string& attribute) const;
  const std::string& text(const std::string& attribute) const;

  const std::vector<TensorInfo>& tensors() const { return index_.tensors; }  // by name
  bool contains(const std::string& name) const;
  const TensorInfo& info(const std::string& name) const;

  // Compares checksums of files number part, part + parts, …: with part = rank and parts = ranks,
  // the ranks together read every byte once.
  void verify(int part = 0, int parts = 1) const;

  Tensor read(const std::string& name);
  Tensor read_rows(const std::string& name, std::int64_t first, std::int64_t count);
  // Fills entry.value with its rows of the tensor. dtype and global shape must be those that were
  // saved. A shard that is read whole is compared with its checksum on the way.
  void read_into(const TensorEntry& entry);

 private:
  struct OpenFile {
    hdf5::Handle handle;
    std::map<std::string, Placement> shards;
  };

  void read_rows_into(const TensorInfo& tensor, std::int64_t first, const Tensor& target);
  OpenFile& open(const std::string& file);
  template <class T>
  const T& attribute(const std::string& name, const char* kind) const;

  std::filesystem::path folder_;
  Marker marker_;
  Index index_;
  std::map<std::string, OpenFile> files_;
};

}  // namespace fulcrum::checkpoint
