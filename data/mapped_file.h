#pragma once
// A whole file mapped read-only into memory: the system pages it in and out, so size does not
// matter.

#include <cstddef>
#include <cstring>
#include <filesystem>

namespace fulcrum::data {

class MappedFile {
 public:
  // IoError when the file is missing, unreadable or not a regular file.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  std::size_t bytes() const { return bytes_; }
  const std::byte* data() const { return data_; }

  // Value at a byte offset, aligned or not. The caller has checked that it lies inside.
  template <class T>
  T at(std::size_t offset) const {
    T value;
    std::memcpy(&value, data_ + offset, sizeof value);
    return value;
  }

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace fulcrum::data
