#pragma once
// A folder that appears under its final name only when it is complete.
//
// The work happens in NAME.incomplete, which is locked while a process writes it and removed when
// that process fails. What a killed process left there is replaced by the next one.

#include <filesystem>

namespace fulcrum::data {

class StagingFolder {
 public:
  // UserError when `target` exists and may not be replaced: without `force`, or when it is no
  // prepared folder (has no manifest.json) and is not empty; also when another process is writing
  // it.
  StagingFolder(const std::filesystem::path& target, bool force);
  ~StagingFolder();
  StagingFolder(const StagingFolder&) = delete;
  StagingFolder& operator=(const StagingFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  // Puts the folder in place of `target` in one step and removes what was there.
  void commit();

 private:
  std::filesystem::path target_, path_;
  int lock_ = -1;
};

}  // namespace fulcrum::data
