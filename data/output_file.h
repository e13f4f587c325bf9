#pragma once
// A file written front to back through a buffer, with its size and checksum at the end.

#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "framework/core/checksum.h"

namespace fulcrum::data {

struct FileDigest {
  std::int64_t bytes = 0;
  std::uint64_t checksum = 0;  // XXH64
};

// Every failure (disk full, no permission, file too large) is an IoError with the file's name and
// the system's reason.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);  // creates or empties the file
  ~OutputFile();  // closes; what finish() did not flush is lost
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* data, std::size_t bytes);
  template <class T>
  void write_value(T value) {
    write(&value, sizeof value);
  }
  std::int64_t bytes() const { return written_; }

  // Flushes to the disk and closes.
  FileDigest finish();

 private:
  void flush();
  [[noreturn]] void fail(int error) const;

  std::filesystem::path path_;
  std::vector<char> buffer_;
  Checksum checksum_;
  std::int64_t written_ = 0;
  int fd_ = -1;
};

FileDigest write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace fulcrum::data
