#include "framework/core/file.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "framework/core/error.h"

namespace fulcrum {
namespace {

constexpr std::int64_t kLargestWrite = std::int64_t{1}
                                       << 30;  // Linux takes no more than 2 GiB at once

bool disk_full(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

template <class Write>
void write_fully(const std::filesystem::path& path, const void* data, std::int64_t bytes,
                 Write&& write_some) {
  const char* p = static_cast<const char*>(data);
  for (std::int64_t done = 0; done < bytes;) {
    const ssize_t n = write_some(p + done, std::min(bytes - done, kLargestWrite), done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_io("write", path, errno);
    done += n;
  }
}

}  // namespace

void throw_io(std::string_view action, const std::filesystem::path& path, int error) {
  std::string space;
  if (disk_full(error)) {
    const std::int64_t free = free_space(path);
    if (free >= 0) space = fmt::format(" ({} free)", size_text(free));
  }
  throw IoError(
      fmt::format("cannot {} {}: {}{}", action, path.string(), std::strerror(error), space));
}

OutputFile::OutputFile(const std::filesystem::path& path, Mode mode) : path_(path) {
  int flags = O_WRONLY | O_CLOEXEC;
  if (mode != Mode::update) flags |= O_CREAT | (mode == Mode::append ? O_APPEND : O_TRUNC);
  descriptor_ = ::open(path.c_str(), flags, 0644);
  if (descriptor_ < 0) throw_io(mode == Mode::update ? "open" : "create", path, errno);
}

OutputFile& OutputFile::operator=(OutputFile&& other) noexcept {
  if (this != &other) {
    if (descriptor_ >= 0) ::close(descriptor_);
    path_ = std::move(other.path_);
    descriptor_ = std::exchange(other.descriptor_, -1);
  }
  return *this;
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFile::write(const void* data, std::int64_t bytes) {
  write_fully(path_, data, bytes, [this](const char* p, std::int64_t n, std::int64_t) {
    return ::write(descriptor_, p, static_cast<std::size_t>(n));
  });
}

void OutputFile::write_at(std::int64_t offset, const void* data, std::int64_t bytes) {
  write_fully(path_, data, bytes, [this, offset](const char* p, std::int64_t n, std::int64_t done) {
    return ::pwrite(descriptor_, p, static_cast<std::size_t>(n), offset + done);
  });
}

void OutputFile::reserve(std::int64_t bytes) {
  if (bytes <= 0) return;
  while (::fallocate(descriptor_, 0, 0, bytes) != 0) {
    if (errno == EINTR) continue;
    if (!disk_full(errno)) return;
    const int error = errno;
    const std::int64_t free = free_space(path_);
    throw IoError(fmt::format("cannot write {}: {}: {} needed, {} free", path_.string(),
                              std::strerror(error), size_text(bytes),
                              free < 0 ? "an unknown amount" : size_text(free)));
  }
}

void OutputFile::sync() {
  if (::fsync(descriptor_) != 0) throw_io("flush", path_, errno);
}

void OutputFile::close() {
  const int descriptor = std::exchange(descriptor_, -1);
  if (descriptor >= 0 && ::close(descriptor) != 0) throw_io("close", path_, errno);
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw_io("open", path, errno);
  std::ostringstream text;
  text << in.rdbuf();
  if (in.bad()) throw_io("read", path, errno);
  return std::move(text).str();
}

void replace_file(const std::filesystem::path& path, std::string_view text) {
  std::filesystem::path temporary = path;
  temporary += ".tmp";
  try {
    OutputFile file(temporary, OutputFile::Mode::truncate);
    file.write(text);
    file.sync();
    file.close();
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) throw_io("replace", path, errno);
  sync_directory(path.parent_path());
}

void sync_directory(const std::filesystem::path& path) {
  const std::filesystem::path& folder = path.empty() ? std::filesystem::path(".") : path;
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw_io("open folder", folder, errno);
  const int result = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  // Some network file systems have no fsync for folders and say so.
  if (result != 0 && error != EINVAL && error != ENOTSUP) throw_io("flush folder", folder, error);
}

std::int64_t free_space(const std::filesystem::path& path) {
  struct statvfs info;
  std::filesystem::path existing = std::filesystem::absolute(path);
  while (::statvfs(existing.c_str(), &info) != 0) {
    if (errno != ENOENT || existing == existing.parent_path()) return -1;
    existing = existing.parent_path();
  }
  return static_cast<std::int64_t>(info.f_bavail) * static_cast<std::int64_t>(info.f_frsize);
}

std::string size_text(std::int64_t bytes) {
  if (bytes < 1024) return fmt::format("{} bytes", bytes);
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024.0;
  int unit = 0;
  for (; value >= 1024.0 && unit < 4; ++unit) value /= 1024.0;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

}  // namespace fulcrum
