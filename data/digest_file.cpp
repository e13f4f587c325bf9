#include "data/digest_file.h"

#include <algorithm>

namespace fulcrum::data {
namespace {
constexpr std::size_t kBufferBytes = std::size_t{1} << 20;
}

DigestFile::DigestFile(const std::filesystem::path& path)
    : file_(path, OutputFile::Mode::truncate) {
  buffer_.reserve(kBufferBytes);
}

void DigestFile::write(const void* data, std::size_t bytes) {
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

void DigestFile::flush() {
  checksum_.update(buffer_.data(), buffer_.size());
  file_.write(buffer_.data(), static_cast<std::int64_t>(buffer_.size()));
  buffer_.clear();
}

FileDigest DigestFile::finish() {
  flush();
  file_.sync();
  file_.close();
  return {written_, checksum_.digest()};
}

FileDigest write_file(const std::filesystem::path& path, std::string_view content) {
  DigestFile file(path);
  file.write(content.data(), content.size());
  return file.finish();
}

}  // namespace fulcrum::data
