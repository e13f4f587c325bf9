#pragma once
// manifest.json of a prepared folder: what is in it, and the checksums to prove it.
//
//   {"format": "fulcrum-prepared", "version": 1,
//    "tokenizer": {"kind", "file", "bytes", "xxh64", "vocabulary", "end_of_document", "pad"},
//    "splits": {"train": {"documents", "tokens", "bytes", "shards": [{"name", "documents",
//    "tokens", "bytes",
//               "bin": {"bytes", "xxh64"}, "idx": {"bytes", "xxh64"}}]}, "valid": {…}},
//    "sources": […], "settings": {…}, "xxh64": checksum of the manifest without this key, in
//    nlohmann::json's compact form}
//
// `bytes` of splits and shards count the text that went in (UTF-8), so bits per byte can be
// computed from a loss per token.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "data/digest_file.h"

namespace fulcrum::data {

struct TokenizerRecord {
  std::string kind;  // "bytes" or "sentencepiece"
  std::string file;  // within the folder; empty for bytes
  FileDigest digest;
  std::int64_t vocabulary = 0;
  std::int32_t end_of_document = 0;
  std::int32_t pad = 0;
};

struct ShardRecord {
  std::string name;  // files NAME.bin and NAME.idx within the folder
  std::int64_t documents = 0, tokens = 0, bytes = 0;
  FileDigest bin, idx;
};

struct SplitRecord {
  std::int64_t documents = 0, tokens = 0, bytes = 0;
  std::vector<ShardRecord> shards;
};

struct Manifest {
  TokenizerRecord tokenizer;
  SplitRecord train, valid;
  std::vector<std::string> sources;
  std::map<std::string, std::string> settings;  // the options that made it, for people
};

inline constexpr const char* kManifestName = "manifest.json";

void write_manifest(const std::filesystem::path& folder, const Manifest& manifest);

// IoError when the file is missing, unreadable, changed since it was written, or of a newer
// version.
Manifest read_manifest(const std::filesystem::path& folder);

}  // namespace fulcrum::data
