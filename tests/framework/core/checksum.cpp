#include "framework/core/checksum.h"

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "framework/core/error.h"
#include "tests/catch.h"

using namespace fulcrum;

namespace {

std::vector<unsigned char> pattern(std::size_t n) {
  std::vector<unsigned char> bytes(n);
  for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<unsigned char>(i * 7 + 3);
  return bytes;
}

struct Golden {
  std::size_t bytes;
  std::uint64_t seed;
  std::uint64_t digest;
};

// From Python's xxhash.xxh64 over the pattern above.
constexpr Golden kGolden[] = {
    {0, 0, 0xef46db3751d8e999},
    {1, 0, 0x1f25c8d0bc1f4bb6},
    {3, 0, 0x31d2363f52e564c9},
    {4, 0, 0x9bb64b7d66ee9fda},
    {8, 0, 0xdab99d95c6f90092},
    {14, 0, 0xc7f1d4d0acfa5a14},
    {31, 0, 0xa2aa5f33cc4a6119},
    {32, 0, 0x23c3c17ef790fd97},
    {33, 0, 0x50a7cfc7ba588784},
    {63, 0, 0x5e3e54b431c7493c},
    {222, 0, 0x8488aa61fc67f7eb},
    {1000, 0, 0x5f235fa033f1a3fb},
    {0, 2654435761u, 0xac75fda2929b17ef},
    {14, 2654435761u, 0x51341a138b098941},
    {33, 2654435761u, 0x72cdd3262f467933},
    {222, 2654435761u, 0xa0e106fbd1fdfc38},
    {1000, 2654435761u, 0x83080310ee83cc20},
};

}  // namespace

TEST_CASE("checksum equals XXH64's published values", "[unit][core]") {
  const auto bytes = pattern(1000);
  for (const Golden& golden : kGolden) {
    CHECK(checksum(bytes.data(), golden.bytes, golden.seed) == golden.digest);
  }
  CHECK(checksum_text(0x1f25c8d0bc1f4bb) == "01f25c8d0bc1f4bb");
}

TEST_CASE("checksum does not depend on how the bytes are divided", "[unit][core]") {
  const auto bytes = pattern(1000);
  for (const std::size_t step : {1, 5, 31, 32, 33, 100}) {
    Checksum sum;
    for (std::size_t i = 0; i < bytes.size(); i += step) {
      sum.update(bytes.data() + i, std::min(step, bytes.size() - i));
      sum.update(nullptr, 0);
    }
    CHECK(sum.digest() == 0x5f235fa033f1a3fb);
  }
}

TEST_CASE("checksum finds every single bit flip", "[unit][core]") {
  auto bytes = pattern(77);
  const std::uint64_t whole = checksum(bytes.data(), bytes.size());
  for (std::size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] ^= static_cast<unsigned char>(1u << (bit % 8));
    CHECK(checksum(bytes.data(), bytes.size()) != whole);
    bytes[bit / 8] ^= static_cast<unsigned char>(1u << (bit % 8));
  }
}

TEST_CASE("checksum of a file", "[unit][core]") {
  const auto path = std::filesystem::temp_directory_path() / "fulcrum_checksum_test.bin";
  const auto bytes = pattern(1000);
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  CHECK(checksum_file(path) == 0x5f235fa033f1a3fb);
  std::filesystem::remove(path);
  CHECK_THROWS_AS(checksum_file(path), IoError);
}
