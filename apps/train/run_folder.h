#pragma once
// The folder of one run: who writes to it, and what it holds besides checkpoints.
//
//   config.yaml   the resolved experiment         metrics.jsonl, events.out.tfevents.*   telemetry
//   lock          held while a run writes here    checkpoints/                           see
//   framework/checkpoint result.json   written when the run has reached its last step

#include <string>

namespace fulcrum::apps {

class RunFolder {
 public:
  // Creates the folder and takes its lock. Throws UserError naming the holder when another run has
  // it. Rank 0 only.
  explicit RunFolder(const std::string& path);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  // Writes a file beside its place and renames it.
  void write(const std::string& name, const std::string& text) const;

 private:
  std::string path_;
  int lock_ = -1;
};

}  // namespace fulcrum::apps
