#pragma once
// Files written so that they survive a crash, with errors that name the file.
//
// Every function throws IoError: "cannot write runs/a/metrics.jsonl: No space left on device (12.0
// KiB free)".

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace fulcrum {

class OutputFile {
 public:
  enum class Mode { truncate, append, update };  // update: an existing file, written in place

  OutputFile() = default;
  OutputFile(const std::filesystem::path& path, Mode mode);
  OutputFile(OutputFile&& other) noexcept { *this = std::move(other); }
  OutputFile& operator=(OutputFile&& other) noexcept;
  ~OutputFile();

  // All of the bytes, in one system call where the system takes them at once.
  void write(const void* data, std::int64_t bytes);
  void write(std::string_view text) { write(text.data(), static_cast<std::int64_t>(text.size())); }
  void write_at(std::int64_t offset, const void* data, std::int64_t bytes);
  // Claims disk space for the first `bytes` bytes, so that a full disk shows before anything is
  // written. Does nothing on file systems without this. The error names the space that is needed
  // and the space that is free.
  void reserve(std::int64_t bytes);
  void sync();
  void close();  // the destructor closes too, but ignores errors

  bool is_open() const { return descriptor_ >= 0; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
};

std::string read_text(const std::filesystem::path& path);

// Puts text into a file that others see either as it was or whole: temporary file, fsync, rename,
// fsync of the folder.
void replace_file(const std::filesystem::path& path, std::string_view text);

// fsync of a folder: names created, renamed or removed in it are on disk afterwards.
void sync_directory(const std::filesystem::path& path);

// Bytes that an unprivileged process can still write to the file system of this path; -1 when
// unknown.
std::int64_t free_space(const std::filesystem::path& path);

// "512 bytes", "1.5 KiB", "2.0 GiB".
std::string size_text(std::int64_t bytes);

// Throws IoError "cannot <action> <path>: <reason of errno>", with the free space when the disk is
// full.
[[noreturn]] void throw_io(std::string_view action, const std::filesystem::path& path, int error);

}  // namespace fulcrum
