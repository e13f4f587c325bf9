#include "data/byte_stream.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "framework/core/error.h"
#include "framework/core/file.h"

namespace fulcrum::data {
namespace {
constexpr std::size_t kInputBytes = std::size_t{1} << 17;
}

struct ByteStream::Decoder {
  virtual ~Decoder() = default;
  // Decompresses from [in, in_end) and moves `in`; returns the bytes written.
  virtual std::size_t decode(const char*& in, const char* in_end, char* out, std::size_t bytes) = 0;
  // True when the data may end here.
  virtual bool complete() const = 0;
};

struct ByteStream::Gzip final : Decoder {
  explicit Gzip(std::string file) : name(std::move(file)) {
    FULCRUM_CHECK(inflateInit2(&stream, 16 + MAX_WBITS) == Z_OK, "zlib does not start");
  }
  ~Gzip() override { inflateEnd(&stream); }

  std::size_t decode(const char*& in, const char* in_end, char* out, std::size_t bytes) override {
    if (at_end) {
      inflateReset(&stream);  // the next member
      at_end = false;
    }
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in));
    stream.avail_in = static_cast<uInt>(in_end - in);
    stream.next_out = reinterpret_cast<Bytef*>(out);
    stream.avail_out = static_cast<uInt>(std::min<std::size_t>(bytes, 1u << 30));
    const uInt room = stream.avail_out;
    const int result = inflate(&stream, Z_NO_FLUSH);
    in = in_end - stream.avail_in;
    at_end = result == Z_STREAM_END;
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      throw IoError(fmt::format("{}: damaged gzip data: {}", name,
                                stream.msg != nullptr ? stream.msg : zError(result)));
    }
    return room - stream.avail_out;
  }
  bool complete() const override { return at_end; }

  std::string name;
  z_stream stream{};
  bool at_end = false;
};

struct ByteStream::Zstd final : Decoder {
  explicit Zstd(std::string file) : name(std::move(file)), context(ZSTD_createDCtx()) {
    FULCRUM_CHECK(context != nullptr, "zstd does not start");
  }
  ~Zstd() override { ZSTD_freeDCtx(context); }

  std::size_t decode(const char*& in, const char* in_end, char* out, std::size_t bytes) override {
    ZSTD_inBuffer input{in, static_cast<std::size_t>(in_end - in), 0};
    ZSTD_outBuffer output{out, bytes, 0};
    left = ZSTD_decompressStream(context, &output, &input);
    if (ZSTD_isError(left)) {
      throw IoError(fmt::format("{}: damaged zstd data: {}", name, ZSTD_getErrorName(left)));
    }
    in += input.pos;
    return output.pos;
  }
  bool complete() const override { return left == 0; }

  std::string name;
  ZSTD_DCtx* context;
  std::size_t left = 0;
};

ByteStream::ByteStream(const std::string& path, std::atomic<std::int64_t>* consumed)
    : name_(path == "-" ? "standard input" : path), consumed_(consumed) {
  fd_ = path == "-" ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd_ < 0) throw_io("open", name_, errno);
  input_.reserve(kInputBytes);
  while (input_.size() < 4 && fill()) {
  }
  const auto starts = [&](const char* magic, std::size_t n) {
    return input_.size() >= n && std::memcmp(input_.data(), magic, n) == 0;
  };
  if (starts("\x1f\x8b", 2)) decoder_ = std::make_unique<Gzip>(name_);
  if (starts("\x28\xb5\x2f\xfd", 4)) decoder_ = std::make_unique<Zstd>(name_);
}

ByteStream::~ByteStream() {
  if (fd_ >= 0) ::close(fd_);
}

std::size_t ByteStream::read_raw(char* out, std::size_t bytes) {
  for (;;) {
    const ssize_t n = ::read(fd_, out, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_io("read", name_, errno);
    if (consumed_ != nullptr) consumed_->fetch_add(n, std::memory_order_relaxed);
    return static_cast<std::size_t>(n);
  }
}

bool ByteStream::fill() {
  input_.erase(0, at_);
  at_ = 0;
  const std::size_t kept = input_.size();
  input_.resize(kInputBytes);
  const std::size_t n = read_raw(input_.data() + kept, kInputBytes - kept);
  input_.resize(kept + n);
  return n > 0;
}

std::size_t ByteStream::read(char* out, std::size_t bytes) {
  if (bytes == 0) return 0;
  for (;;) {
    if (!decoder_) {
      if (at_ == input_.size() && !fill()) return 0;
      const std::size_t n = std::min(bytes, input_.size() - at_);
      std::memcpy(out, input_.data() + at_, n);
      at_ += n;
      return n;
    }
    // A decoder may hold output that needs no more input, except when it has ended a member or
    // frame.
    if (at_ < input_.size() || !decoder_->complete()) {
      const char* in = input_.data() + at_;
      const std::size_t n = decoder_->decode(in, input_.data() + input_.size(), out, bytes);
      at_ = static_cast<std::size_t>(in - input_.data());
      if (n > 0) return n;
      if (at_ < input_.size()) continue;
    }
    if (!fill()) {
      if (!decoder_->complete()) {
        throw IoError(fmt::format("{}: the compressed data ends early: truncated", name_));
      }
      return 0;
    }
  }
}

}  // namespace fulcrum::data
