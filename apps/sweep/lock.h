#pragma once
// One owner of a folder at a time. The lock is the kernel's (flock), so it ends with the process
// however that ends: a lock file without a living owner is stale and taken over. The file names the
// owner for the message.

#include <filesystem>
#include <string>

namespace fulcrum::apps {

class FolderLock {
 public:
  // Throws UserError "… is being driven by process PID on HOST since TIME".
  FolderLock(const std::filesystem::path& file, const std::string& what);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_ = -1;
};

}  // namespace fulcrum::apps
