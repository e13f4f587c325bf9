#pragma once
// The folder of a run's checkpoints, as one rank (rank 0) keeps it.
//
// A save has two phases, with the caller's communication between them:
//
//   every rank:  entry = write_shard_file(unfinished_folder(dir, step), rank, tensors, attributes)
//                (or BackgroundWriter, which does the same in a thread)
//   caller:      gathers entry.to_text() at rank 0, and learns whether any rank failed
//   rank 0:      store.finalize(step, entries, attributes), or store.abort(step)
//
// A kill at any moment leaves `latest` on a whole checkpoint: files are flushed before the folder
// gets its name, the name is flushed before `latest` moves, and old checkpoints go only after that.

#include <filesystem>
#include <optional>
#include <vector>

#include "framework/checkpoint/types.h"

namespace fulcrum::checkpoint {

class CheckpointStore {
 public:
  // keep: how many of the newest checkpoints stay; 0 keeps all.
  explicit CheckpointStore(std::filesystem::path directory, std::int64_t keep = 0);

  // Before a run: ends what a killed run left half done. Removes unfinished saves and half removed
  // checkpoints; a first checkpoint that was complete but not yet named by `latest` gets its name.
  // No other process may use the directory, which need not exist.
  void recover() const;

  // Before a save: makes the directory and removes what killed runs left of other steps. Needs no
  // agreement with the other ranks, which may have begun to write this step already.
  void begin(std::int64_t step) const;

  // Writes index.h5 and the marker, names the folder, moves `latest`, removes the oldest
  // checkpoints. A checkpoint of the same step that is already there is replaced. Throws IoError,
  // after abort(step).
  void finalize(std::int64_t step, const std::vector<FileEntry>& files,
                const Attributes& attributes) const;

  // Removes the unfinished save of this step; complete checkpoints stay as they are.
  void abort(std::int64_t step) const noexcept;

 private:
  void publish(std::int64_t step) const;
  void point_latest(std::int64_t step) const;
  void remove_leftovers(const std::filesystem::path& except) const;
  void remove_old(std::int64_t step) const;

  std::filesystem::path directory_;
  std::int64_t keep_;
};

// The step that `latest` names; nothing when the folder holds no checkpoint yet.
std::optional<std::int64_t> latest_step(const std::filesystem::path& directory);

}  // namespace fulcrum::checkpoint
