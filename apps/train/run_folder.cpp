#include "apps/train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "framework/core/error.h"
#include "framework/core/file.h"

namespace fulcrum::apps {
namespace {

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

std::string read_all(int descriptor) {
  char text[512];
  const ssize_t n = pread(descriptor, text, sizeof text, 0);
  return std::string(text, n > 0 ? static_cast<std::size_t>(n) : 0);
}

}  // namespace

RunFolder::RunFolder(const std::string& path) : path_(path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error)
    throw IoError(fmt::format("run folder {}: cannot be created: {}", path, error.message()));
  const std::string name = file("lock");
  lock_ = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) throw IoError(fmt::format("{}: {}", name, std::strerror(errno)));
  if (flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const std::string holder = read_all(lock_);
    close(lock_);
    lock_ = -1;
    throw UserError(fmt::format(
        "run folder {}: another run is writing here ({}); wait for it or choose another run_dir",
        path, holder));
  }
  const std::string holder = fmt::format("process {} on {}", getpid(), host_name());
  if (ftruncate(lock_, 0) != 0 || pwrite(lock_, holder.data(), holder.size(), 0) < 0) {
    throw IoError(fmt::format("{}: {}", name, std::strerror(errno)));
  }
}

RunFolder::~RunFolder() {
  if (lock_ >= 0) close(lock_);
}

void RunFolder::write(const std::string& name, const std::string& text) const {
  replace_file(file(name), text);
}

}  // namespace fulcrum::apps
