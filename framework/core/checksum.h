#pragma once
// XXH64, the 64-bit checksum of every file that Fulcrum writes (specification:
// github.com/Cyan4973/xxHash, doc/xxhash_spec.md).
//
// It finds bit flips, truncation and swapped blocks; it does not resist an adversary. Values equal
// those of the `xxhsum -H1` program and of Python's xxhash.xxh64, so files can be verified without
// Fulcrum. Above 2 GB/s on one core.

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace fulcrum {

// Streaming form: any division of the bytes into updates gives the same digest.
class Checksum {
 public:
  explicit Checksum(std::uint64_t seed = 0);

  void update(const void* data, std::size_t bytes);
  // Checksum of everything so far; more updates may follow.
  std::uint64_t digest() const;

 private:
  std::array<std::uint64_t, 4> lanes_;
  std::array<unsigned char, 32> buffer_;  // the tail that does not fill a stripe
  std::uint64_t seed_;
  std::uint64_t total_ = 0;
  std::size_t buffered_ = 0;
};

std::uint64_t checksum(const void* data, std::size_t bytes, std::uint64_t seed = 0);

// Reads the whole file in blocks; IoError names the file when it cannot be read.
std::uint64_t checksum_file(const std::filesystem::path& path);

// Sixteen lower-case hexadecimal digits, the way manifests store it.
std::string checksum_text(std::uint64_t digest);

}  // namespace fulcrum
