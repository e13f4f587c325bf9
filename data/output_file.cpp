#include "data/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "framework/core/error.h"

namespace fulcrum::data {
namespace {
constexpr std::size_t kBufferBytes = std::size_t{1} << 20;
}

OutputFile::OutputFile(const std::filesystem::path& path) : path_(path) {
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd_ < 0) fail(errno);
  buffer_.reserve(kBufferBytes);
}

OutputFile::~OutputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void OutputFile::fail(int error) const {
  throw IoError(fmt::format("{}: cannot write: {}", path_.string(), std::strerror(error)));
}

void OutputFile::write(const void* data, std::size_t bytes) {
  const auto* p = static_cast<const char*>(data);
  written_ += static_cast<std::int64_t>(bytes);
  while (bytes > 0) {
    const std::size_t taken = std::min(bytes, kBufferBytes - buffer_.size());
    buffer_.insert(buffer_.end(), p, p + taken);
    p += taken;
    bytes -= taken;
    if (buffer_.size() == kBufferBytes) flush();
  }
}

void OutputFile::flush() {
  checksum_.update(buffer_.data(), buffer_.size());
  for (std::size_t done = 0; done < buffer_.size();) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(n < 0 ? errno : ENOSPC);
    done += static_cast<std::size_t>(n);
  }
  buffer_.clear();
}

FileDigest OutputFile::finish() {
  flush();
  if (::fsync(fd_) != 0) fail(errno);
  if (::close(std::exchange(fd_, -1)) != 0) fail(errno);
  return {written_, checksum_.digest()};
}

FileDigest write_file(const std::filesystem::path& path, std::string_view content) {
  OutputFile file(path);
  file.write(content.data(), content.size());
  return file.finish();
}

}  // namespace fulcrum::data
