#include "data/prepared_data.h"

#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

void verify_file(const std::filesystem::path& path, const FileDigest& expected, Verify verify) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (error) throw IoError(fmt::format("{}: cannot open: {}", path.string(), error.message()));
  if (static_cast<std::int64_t>(bytes) != expected.bytes) {
    throw IoError(fmt::format("{}: {} bytes; {} records {}: truncated or replaced", path.string(),
                              bytes, kManifestName, expected.bytes));
  }
  if (verify == Verify::sizes) return;
  if (const std::uint64_t found = checksum_file(path); found != expected.checksum) {
    throw IoError(fmt::format("{}: checksum {}; {} records {}: the file is damaged", path.string(),
                              checksum_text(found), kManifestName,
                              checksum_text(expected.checksum)));
  }
}

}  // namespace

PreparedData::PreparedData(const std::filesystem::path& folder, Verify verify)
    : folder_(folder), manifest_(read_manifest(folder)) {
  if (!manifest_.tokenizer.file.empty()) {
    verify_file(folder / manifest_.tokenizer.file, manifest_.tokenizer.digest, verify);
  }
  for (const Split split : {Split::train, Split::valid}) {
    for (const ShardRecord& shard : record(split).shards) {
      const ShardFiles files = shard_files(folder / shard.name);
      verify_file(files.bin, shard.bin, verify);
      verify_file(files.idx, shard.idx, verify);
    }
  }
}

TokenStream PreparedData::stream(Split split) const {
  std::vector<TokenShard> shards;
  for (const ShardRecord& record : record(split).shards) {
    TokenShard& shard = shards.emplace_back(folder_ / record.name);
    if (shard.tokens() != record.tokens || shard.documents() != record.documents) {
      throw IoError(fmt::format("{}: {} tokens in {} documents; {} records {} in {}",
                                shard.bin_path().string(), shard.tokens(), shard.documents(),
                                kManifestName, record.tokens, record.documents));
    }
  }
  return TokenStream(std::move(shards));
}

}  // namespace fulcrum::data
