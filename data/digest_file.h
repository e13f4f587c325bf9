#pragma once
// A file written front to back through a buffer, with its size and checksum at the end.

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "framework/core/checksum.h"
#include "framework/core/file.h"

namespace fulcrum::data {

struct FileDigest {
  std::int64_t bytes = 0;
  std::uint64_t checksum = 0;  // XXH64
};

// Throws IoError like OutputFile.
class DigestFile {
 public:
  explicit DigestFile(const std::filesystem::path& path);  // creates or empties the file

  void write(const void* data, std::size_t bytes);
  template <class T>
  void write_value(T value) {
    write(&value, sizeof value);
  }
  std::int64_t bytes() const { return written_; }

  // Flushes to the disk and closes. What is not finished is lost.
  FileDigest finish();

 private:
  void flush();

  OutputFile file_;
  std::vector<char> buffer_;
  Checksum checksum_;
  std::int64_t written_ = 0;
};

FileDigest write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace fulcrum::data
