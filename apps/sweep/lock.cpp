#include "apps/sweep/lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "apps/sweep/point_state.h"
#include "framework/core/error.h"

namespace fulcrum::apps {

FolderLock::FolderLock(const std::filesystem::path& file, const std::string& what) {
  file_ = open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (file_ < 0)
    throw IoError(fmt::format("{}: cannot be opened: {}", file.string(), std::strerror(errno)));
  if (flock(file_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    char owner[512] = {};
    const ssize_t n = pread(file_, owner, sizeof owner - 1, 0);
    close(file_);
    if (error != EWOULDBLOCK)
      throw IoError(fmt::format("{}: cannot be locked: {}", file.string(), std::strerror(error)));
    throw UserError(fmt::format("{}: {} is being driven by {}; wait for it or stop it",
                                file.string(), what,
                                n > 0 ? std::string(owner, n) : std::string("another process")));
  }
  const std::string owner =
      fmt::format("process {} on {} since {}", getpid(), host_name(), utc_now());
  if (ftruncate(file_, 0) != 0 ||
      pwrite(file_, owner.data(), owner.size(), 0) != static_cast<ssize_t>(owner.size())) {
    close(file_);
    throw IoError(fmt::format("{}: cannot be written: {}", file.string(), std::strerror(errno)));
  }
}

FolderLock::~FolderLock() {
  [[maybe_unused]] const int ignored = ftruncate(file_, 0);
  close(file_);
}

}  // namespace fulcrum::apps
