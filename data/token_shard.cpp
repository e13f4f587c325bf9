#include "data/token_shard.h"

#include <array>
#include <limits>
#include <string_view>

#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

constexpr std::string_view kMagic("MMIDIDX\0\0", 9);
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 9 + 8 + 1 + 8 + 8;
constexpr std::uint8_t kCodeI32 = 4, kCodeU16 = 8;

}  // namespace

DType token_type(std::int64_t vocabulary) { return vocabulary < 65500 ? DType::u16 : DType::i32; }

ShardFiles shard_files(const std::filesystem::path& prefix) {
  return {prefix.string() + ".bin", prefix.string() + ".idx"};
}

TokenShardWriter::TokenShardWriter(const std::filesystem::path& prefix, std::int64_t vocabulary)
    : prefix_(prefix),
      vocabulary_(vocabulary),
      type_(token_type(vocabulary)),
      bin_(shard_files(prefix).bin) {}

void TokenShardWriter::add_document(std::span<const std::int32_t> tokens) {
  FULCRUM_REQUIRE(tokens.size() <= std::numeric_limits<std::int32_t>::max(),
                  "token shard: a document holds at most 2147483647 tokens; got {}", tokens.size());
  for (const std::int32_t id : tokens) {
    FULCRUM_REQUIRE(id >= 0 && id < vocabulary_, "token shard: ids lie in [0, {}); got {}",
                    vocabulary_, id);
  }
  if (type_ == DType::u16) {
    narrow_.assign(tokens.begin(), tokens.end());
    bin_.write(narrow_.data(), narrow_.size() * sizeof(std::uint16_t));
  } else {
    bin_.write(tokens.data(), tokens.size_bytes());
  }
  lengths_.push_back(static_cast<std::int32_t>(tokens.size()));
}

TokenShardWriter::Digests TokenShardWriter::finish() {
  Digests digests;
  digests.bin = bin_.finish();
  DigestFile idx(shard_files(prefix_).idx);
  const auto count = static_cast<std::uint64_t>(lengths_.size());
  idx.write(kMagic.data(), kMagic.size());
  idx.write_value(kVersion);
  idx.write_value(type_ == DType::u16 ? kCodeU16 : kCodeI32);
  idx.write_value(count);
  idx.write_value(count + 1);
  idx.write(lengths_.data(), lengths_.size() * sizeof(std::int32_t));
  std::int64_t pointer = 0;
  for (const std::int32_t length : lengths_) {
    idx.write_value(pointer);
    pointer += length * size_of(type_);
  }
  for (std::uint64_t document = 0; document <= count; ++document) {
    idx.write_value(static_cast<std::int64_t>(document));
  }
  digests.idx = idx.finish();
  return digests;
}

TokenShard::TokenShard(const std::filesystem::path& prefix)
    : idx_(shard_files(prefix).idx), bin_(shard_files(prefix).bin) {
  const auto bad = [&](std::size_t at, const std::string& what) {
    throw IoError(
        fmt::format("{}: not a readable token index: byte {}: {}", idx_.path().string(), at, what));
  };
  if (idx_.bytes() < kHeaderBytes) {
    bad(idx_.bytes(), fmt::format("the file ends inside the header of {} bytes", kHeaderBytes));
  }
  if (std::string_view(reinterpret_cast<const char*>(idx_.data()), kMagic.size()) != kMagic) {
    bad(0, "the file does not begin with MMIDIDX");
  }
  if (const auto version = idx_.at<std::uint64_t>(9); version != kVersion) {
    bad(9, fmt::format("version {}; this program reads version 1", version));
  }
  const auto code = idx_.at<std::uint8_t>(17);
  if (code != kCodeI32 && code != kCodeU16) {
    bad(17, fmt::format("token type code {}; this program reads 4 (i32) and 8 (u16)", code));
  }
  type_ = code == kCodeI32 ? DType::i32 : DType::u16;
  const auto sequences = idx_.at<std::uint64_t>(18);
  const auto entries = idx_.at<std::uint64_t>(26);
  // Bounds first, so that the sizes below cannot overflow.
  if (sequences > idx_.bytes() / 12 || entries > idx_.bytes() / 8 || entries == 0) {
    bad(18, fmt::format("{} sequences and {} document entries do not fit in {} bytes", sequences,
                        entries, idx_.bytes()));
  }
  const std::size_t expected = kHeaderBytes + sequences * 12 + entries * 8;
  // Multimodal datasets append one mode byte a sequence.
  if (idx_.bytes() != expected && idx_.bytes() != expected + sequences) {
    bad(18, fmt::format("{} sequences and {} document entries need {} bytes; the file has {}",
                        sequences, entries, expected, idx_.bytes()));
  }
  sequences_ = static_cast<std::int64_t>(sequences);
  documents_ = static_cast<std::int64_t>(entries) - 1;
  pointers_at_ = kHeaderBytes + sequences * 4;
  documents_at_ = pointers_at_ + sequences * 8;
  check_arrays(static_cast<std::int64_t>(entries));
  tokens_ = static_cast<std::int64_t>(bin_.bytes()) / size_of(type_);
}

void TokenShard::check_arrays(std::int64_t entries) const {
  const std::string file = idx_.path().string();
  std::int64_t expected = 0;
  for (std::int64_t i = 0; i < sequences_; ++i) {
    const auto length = idx_.at<std::int32_t>(kHeaderBytes + static_cast<std::size_t>(i) * 4);
    if (length < 0 || pointer(i) != expected) {
      throw IoError(
          fmt::format("{}: not a consistent token index: sequence {} has length {} and begins at "
                      "byte {}; expected byte {}",
                      file, i, length, pointer(i), expected));
    }
    expected += length * size_of(type_);
  }
  if (expected != static_cast<std::int64_t>(bin_.bytes())) {
    throw IoError(fmt::format("{}: {} bytes; {} describes {} bytes", bin_.path().string(),
                              bin_.bytes(), file, expected));
  }
  std::int64_t previous = 0;
  for (std::int64_t i = 0; i < entries; ++i) {
    const auto first = idx_.at<std::int64_t>(documents_at_ + static_cast<std::size_t>(i) * 8);
    const bool edge = (i == 0 && first != 0) || (i == entries - 1 && first != sequences_);
    if (edge || first < previous || first > sequences_) {
      throw IoError(
          fmt::format("{}: not a consistent token index: document {} begins at sequence {} of {}",
                      file, i, first, sequences_));
    }
    previous = first;
  }
}

std::int64_t TokenShard::pointer(std::int64_t sequence) const {
  return idx_.at<std::int64_t>(pointers_at_ + static_cast<std::size_t>(sequence) * 8);
}

std::int64_t TokenShard::document_begin(std::int64_t document) const {
  const auto sequence =
      idx_.at<std::int64_t>(documents_at_ + static_cast<std::size_t>(document) * 8);
  return sequence == sequences_ ? tokens_ : pointer(sequence) / size_of(type_);
}

std::int64_t TokenShard::document_of(std::int64_t position) const {
  std::int64_t low = 0;
  std::int64_t high = documents_;  // the answer lies in [low, high)
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (document_begin(middle) <= position ? low : high) = middle;
  }
  return low;
}

void TokenShard::copy(std::int64_t first, std::int64_t count, std::int32_t* out) const {
  FULCRUM_CHECK(first >= 0 && count >= 0 && first + count <= tokens_, "tokens {}..{} of {}", first,
                first + count, tokens_);
  const std::byte* const begin = bin_.data() + first * size_of(type_);
  if (type_ == DType::i32) {
    std::memcpy(out, begin, static_cast<std::size_t>(count) * sizeof(std::int32_t));
    return;
  }
  const auto* const narrow = reinterpret_cast<const std::uint16_t*>(begin);
  for (std::int64_t i = 0; i < count; ++i) out[i] = narrow[i];
}

std::vector<std::int32_t> TokenShard::document(std::int64_t index) const {
  const std::int64_t first = document_begin(index);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(document_begin(index + 1) - first));
  copy(first, static_cast<std::int64_t>(tokens.size()), tokens.data());
  return tokens;
}

}  // namespace fulcrum::data
