#include "data/manifest.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "fulcrum-prepared";
constexpr int kVersion = 1;

json to_json(const FileDigest& digest) {
  return {{"bytes", digest.bytes}, {"xxh64", checksum_text(digest.checksum)}};
}

FileDigest digest_from(const json& value) {
  return {value.at("bytes").get<std::int64_t>(),
          std::stoull(value.at("xxh64").get<std::string>(), nullptr, 16)};
}

json to_json(const SplitRecord& split) {
  json shards = json::array();
  for (const ShardRecord& shard : split.shards) {
    shards.push_back({{"name", shard.name},
                      {"documents", shard.documents},
                      {"tokens", shard.tokens},
                      {"bytes", shard.bytes},
                      {"bin", to_json(shard.bin)},
                      {"idx", to_json(shard.idx)}});
  }
  return {{"documents", split.documents},
          {"tokens", split.tokens},
          {"bytes", split.bytes},
          {"shards", shards}};
}

SplitRecord split_from(const json& value) {
  SplitRecord split{value.at("documents"), value.at("tokens"), value.at("bytes"), {}};
  for (const json& shard : value.at("shards")) {
    split.shards.push_back({shard.at("name"), shard.at("documents"), shard.at("tokens"),
                            shard.at("bytes"), digest_from(shard.at("bin")),
                            digest_from(shard.at("idx"))});
  }
  return split;
}

std::string checksum_of(const json& root) {
  const std::string text = root.dump();
  return checksum_text(checksum(text.data(), text.size()));
}

}  // namespace

void write_manifest(const std::filesystem::path& folder, const Manifest& manifest) {
  json tokenizer = to_json(manifest.tokenizer.digest);
  tokenizer.update({{"kind", manifest.tokenizer.kind},
                    {"file", manifest.tokenizer.file},
                    {"vocabulary", manifest.tokenizer.vocabulary},
                    {"end_of_document", manifest.tokenizer.end_of_document},
                    {"pad", manifest.tokenizer.pad}});
  json root = {{"format", kFormat},
               {"version", kVersion},
               {"tokenizer", tokenizer},
               {"splits", {{"train", to_json(manifest.train)}, {"valid", to_json(manifest.valid)}}},
               {"sources", manifest.sources},
               {"settings", manifest.settings}};
  root["xxh64"] = checksum_of(root);
  write_file(folder / kManifestName, root.dump(2) + "\n");
}

Manifest read_manifest(const std::filesystem::path& folder) {
  const std::string path = (folder / kManifestName).string();
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    throw UserError(
        fmt::format("data.path: {}: {}; `fulcrum prepare` makes the folder that training reads",
                    folder.string(),
                    std::filesystem::is_directory(folder) ? "has no readable manifest.json"
                                                          : "no such folder"));
  }
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  try {
    json root = json::parse(text);
    if (root.at("format") != kFormat) {
      throw IoError(fmt::format("{}: not the manifest of a prepared folder", path));
    }
    if (const int version = root.at("version"); version != kVersion) {
      throw IoError(
          fmt::format("{}: version {}; this program reads version {}", path, version, kVersion));
    }
    const std::string expected = root.at("xxh64");
    root.erase("xxh64");
    if (const std::string found = checksum_of(root); found != expected) {
      throw IoError(fmt::format("{}: checksum {} expected, {} found: the file was changed", path,
                                expected, found));
    }
    const json& tokenizer = root.at("tokenizer");
    const json& splits = root.at("splits");
    Manifest manifest;
    manifest.tokenizer = {tokenizer.at("kind"),
                          tokenizer.at("file"),
                          digest_from(tokenizer),
                          tokenizer.at("vocabulary"),
                          tokenizer.at("end_of_document"),
                          tokenizer.at("pad")};
    manifest.train = split_from(splits.at("train"));
    manifest.valid = split_from(splits.at("valid"));
    manifest.sources = root.at("sources").get<std::vector<std::string>>();
    manifest.settings = root.at("settings").get<std::map<std::string, std::string>>();
    return manifest;
  } catch (const json::exception& error) {
    throw IoError(fmt::format("{}: not a readable manifest: {}", path, error.what()));
  }
}

}  // namespace fulcrum::data
