#include "data/staging_folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "data/manifest.h"
#include "framework/core/error.h"
#include "framework/core/file.h"

namespace fulcrum::data {
namespace {

namespace fs = std::filesystem;

void check_target(const fs::path& target, bool force) {
  if (!fs::exists(target)) return;
  const std::string name = target.string();
  if (!fs::is_directory(target)) throw UserError(fmt::format("{}: exists and is no folder", name));
  if (fs::is_empty(target)) return;
  if (!fs::exists(target / kManifestName)) {
    throw UserError(fmt::format(
        "{}: exists and holds other things than prepared data; choose another --out", name));
  }
  if (!force) {
    throw UserError(fmt::format("{}: already holds prepared data; --force replaces it", name));
  }
}

fs::path without_slash(const fs::path& path) {
  return path.has_filename() ? path : path.parent_path();
}

}  // namespace

StagingFolder::StagingFolder(const fs::path& target, bool force)
    : target_(without_slash(target)), path_(target_.string() + ".incomplete") {
  check_target(target_, force);
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) throw_io("create", path_, error.value());
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) throw_io("open", path_, errno);
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(std::exchange(lock_, -1));
    throw UserError(fmt::format("{}: another prepare is writing it", path_.string()));
  }
  for (const auto& entry : fs::directory_iterator(path_)) fs::remove_all(entry.path());
}

StagingFolder::~StagingFolder() {
  if (lock_ < 0) return;
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  ::close(lock_);
}

void StagingFolder::commit() {
  sync_directory(path_);
  const bool replaces = fs::exists(target_);
  const unsigned flags = replaces ? RENAME_EXCHANGE : RENAME_NOREPLACE;
  int failed = ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), flags);
  if (failed != 0 && (errno == EINVAL || errno == ENOSYS)) {
    // A file system without these flags: the old folder goes first.
    if (replaces) fs::remove_all(target_);
    failed = ::rename(path_.c_str(), target_.c_str());
  }
  if (failed != 0) throw_io("rename", path_, errno);
  sync_directory(target_.parent_path());
  // After an exchange the old folder has the name of the staging folder.
  std::error_code ignored;
  fs::remove_all(path_, ignored);
  ::close(std::exchange(lock_, -1));
}

}  // namespace fulcrum::data
