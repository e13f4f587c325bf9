#include "framework/core/checksum.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "framework/core/error.h"

namespace fulcrum {
namespace {

static_assert(std::endian::native == std::endian::little, "XXH64 reads little-endian words");

constexpr std::uint64_t kPrime1 = 0x9E3779B185EBCA87u;
constexpr std::uint64_t kPrime2 = 0xC2B2AE3D27D4EB4Fu;
constexpr std::uint64_t kPrime3 = 0x165667B19E3779F9u;
constexpr std::uint64_t kPrime4 = 0x85EBCA77C2B2AE63u;
constexpr std::uint64_t kPrime5 = 0x27D4EB2F165667C5u;
constexpr std::size_t kStripe = 32;

template <class Word>
std::uint64_t load(const unsigned char* p) {
  Word word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

std::uint64_t mix(std::uint64_t lane, std::uint64_t word) {
  return std::rotl(lane + word * kPrime2, 31) * kPrime1;
}

std::uint64_t merge(std::uint64_t hash, std::uint64_t lane) {
  return (hash ^ mix(0, lane)) * kPrime1 + kPrime4;
}

// Consumes whole stripes; returns the first byte that it left.
const unsigned char* consume(std::array<std::uint64_t, 4>& lanes, const unsigned char* p,
                             const unsigned char* end) {
  auto [a, b, c, d] = lanes;
  for (; end - p >= static_cast<std::ptrdiff_t>(kStripe); p += kStripe) {
    a = mix(a, load<std::uint64_t>(p));
    b = mix(b, load<std::uint64_t>(p + 8));
    c = mix(c, load<std::uint64_t>(p + 16));
    d = mix(d, load<std::uint64_t>(p + 24));
  }
  lanes = {a, b, c, d};
  return p;
}

}  // namespace

Checksum::Checksum(std::uint64_t seed)
    : lanes_{seed + kPrime1 + kPrime2, seed + kPrime2, seed, seed - kPrime1}, seed_(seed) {}

void Checksum::update(const void* data, std::size_t bytes) {
  if (bytes == 0) return;
  const auto* p = static_cast<const unsigned char*>(data);
  const unsigned char* const end = p + bytes;
  total_ += bytes;
  if (buffered_ > 0) {
    const std::size_t taken = std::min(bytes, kStripe - buffered_);
    std::memcpy(buffer_.data() + buffered_, p, taken);
    buffered_ += taken;
    p += taken;
    if (buffered_ < kStripe) return;
    consume(lanes_, buffer_.data(), buffer_.data() + kStripe);
  }
  p = consume(lanes_, p, end);
  buffered_ = static_cast<std::size_t>(end - p);
  std::memcpy(buffer_.data(), p, buffered_);
}

std::uint64_t Checksum::digest() const {
  std::uint64_t hash = seed_ + kPrime5;
  if (total_ >= kStripe) {
    const auto& [a, b, c, d] = lanes_;
    hash = std::rotl(a, 1) + std::rotl(b, 7) + std::rotl(c, 12) + std::rotl(d, 18);
    for (const std::uint64_t lane : lanes_) hash = merge(hash, lane);
  }
  hash += total_;
  const unsigned char* p = buffer_.data();
  const unsigned char* const end = p + buffered_;
  for (; end - p >= 8; p += 8) {
    hash = std::rotl(hash ^ mix(0, load<std::uint64_t>(p)), 27) * kPrime1 + kPrime4;
  }
  for (; end - p >= 4; p += 4) {
    hash = std::rotl(hash ^ load<std::uint32_t>(p) * kPrime1, 23) * kPrime2 + kPrime3;
  }
  for (; p < end; ++p) hash = std::rotl(hash ^ *p * kPrime5, 11) * kPrime1;
  hash = (hash ^ (hash >> 33)) * kPrime2;
  hash = (hash ^ (hash >> 29)) * kPrime3;
  return hash ^ (hash >> 32);
}

std::uint64_t checksum(const void* data, std::size_t bytes, std::uint64_t seed) {
  Checksum sum(seed);
  sum.update(data, bytes);
  return sum.digest();
}

std::uint64_t checksum_file(const std::filesystem::path& path) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  if (!file) throw IoError(fmt::format("{}: cannot open: {}", path.string(), std::strerror(errno)));
  std::vector<unsigned char> block(std::size_t{1} << 20);
  Checksum sum;
  while (const std::size_t n = std::fread(block.data(), 1, block.size(), file.get())) {
    sum.update(block.data(), n);
  }
  if (std::ferror(file.get())) {
    throw IoError(fmt::format("{}: cannot read: {}", path.string(), std::strerror(errno)));
  }
  return sum.digest();
}

std::string checksum_text(std::uint64_t digest) { return fmt::format("{:016x}", digest); }

}  // namespace fulcrum
