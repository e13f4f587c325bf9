#pragma once
// rank-R.h5: the shards of one rank.
//
// Each dataset is contiguous, so that its bytes lie at one known offset, and carries the attributes
// checksum (of its bytes, 16 hexadecimal digits), first_row and global_shape. HDF5 writes the
// metadata; the elements go to their offsets by plain writes, which stream any size, leave HDF5's
// lock free and report a full disk as what it is.

#include <filesystem>
#include <string>
#include <vector>

#include "framework/checkpoint/types.h"

namespace fulcrum::checkpoint {

std::string shard_file_name(int rank);  // "rank-3.h5"

// Writes FOLDER/rank-R.h5 (making the folder if need be), flushes it to the disk, reads it back and
// compares checksums. Tensors must be on the host. Throws IoError and removes its file when the
// disk is full or fails; the message names the file and the space needed and free. The folder
// stays, for other ranks may be about to write there: CheckpointStore::abort removes it.
FileEntry write_shard_file(const std::filesystem::path& folder, int rank,
                           const std::vector<TensorEntry>& entries, const Attributes& attributes);

// A dataset of a shard file.
struct Placement {
  ShardRecord shard;
  std::int64_t offset = -1;  // bytes from the start of the file; -1 when the shard has no elements
  std::int64_t bytes = 0;

  Shape shape() const {
    Shape shape = shard.global_shape;
    shape[0] = shard.rows;
    return shape;
  }
};

// The datasets of a shard file, by name. IoError when HDF5 cannot read it.
std::vector<Placement> placements_of(const std::filesystem::path& file);

// Fills target with the rows of the shard from row `first` (of the shard) on. `file` is the open
// file, `where` what errors begin with. To be called inside a Session.
void read_shard_rows(hid_t file, const Placement& placement, std::int64_t first,
                     const Tensor& target, const std::string& where);

// True when the bytes of the shard have the checksum that is recorded for them.
bool intact(const std::filesystem::path& file, const Placement& placement);

}  // namespace fulcrum::checkpoint
