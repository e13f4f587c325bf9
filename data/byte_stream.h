#pragma once
// The bytes of a file or of standard input, decompressed on the way: gzip (also dictzip and several
// members one after another), zstd (also several frames) or plain, told apart by the first bytes.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

namespace fulcrum::data {

class ByteStream {
 public:
  // "-" is standard input. `consumed` grows by the bytes read from the file, before decompression.
  // IoError names the file.
  ByteStream(const std::string& path, std::atomic<std::int64_t>* consumed);
  ~ByteStream();

  // Reads up to `bytes` bytes; 0 only at the end. IoError when the compressed data is damaged or
  // ends early.
  std::size_t read(char* out, std::size_t bytes);

  // "standard input" for "-".
  const std::string& name() const { return name_; }

 private:
  struct Decoder;
  struct Gzip;
  struct Zstd;

  std::size_t read_raw(char* out, std::size_t bytes);
  bool fill();  // the input buffer; false at the end of the file

  std::string name_;
  std::atomic<std::int64_t>* consumed_;
  int fd_ = -1;
  std::string input_;
  std::size_t at_ = 0;                // first unread byte of input_
  std::unique_ptr<Decoder> decoder_;  // none: plain
};

}  // namespace fulcrum::data
