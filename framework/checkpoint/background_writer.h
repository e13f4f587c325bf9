#pragma once
// Writes a rank's shards in a thread of its own while training goes on.
//
//   writer.start(folder, rank, tensors, attributes);   // copies the tensors to the host, returns
//   … training steps; writer.finished() on every rank …
//   entry = writer.wait();                             // result or error, on the training thread

#include <filesystem>
#include <future>
#include <vector>

#include "framework/checkpoint/types.h"

namespace fulcrum::checkpoint {

class BackgroundWriter {
 public:
  BackgroundWriter() = default;
  // Waits for a write under way; its error, if any, is lost.
  ~BackgroundWriter();
  BackgroundWriter(const BackgroundWriter&) = delete;
  BackgroundWriter& operator=(const BackgroundWriter&) = delete;

  // Takes a copy of every tensor on the host and starts write_shard_file with it. The copies'
  // memory is kept and used again by the next save. A previous write must have been collected by
  // wait().
  void start(const std::filesystem::path& folder, int rank, const std::vector<TensorEntry>& entries,
             Attributes attributes);

  // True from start() until wait().
  bool pending() const { return result_.valid(); }
  // True when wait() will not block. Never throws.
  bool finished() const;
  // The entry of the file that was written; throws what write_shard_file threw.
  FileEntry wait();

  // Gives the memory of the copies back.
  void release();

 private:
  std::vector<TensorEntry> snapshot_;
  std::future<FileEntry> result_;
};

}  // namespace fulcrum::checkpoint
