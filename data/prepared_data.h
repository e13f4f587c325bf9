#pragma once
// A folder made by `fulcrum prepare`, opened and checked.

#include <filesystem>
#include <memory>

#include "data/manifest.h"
#include "data/token_stream.h"

namespace fulcrum::data {

enum class Split : std::uint8_t { train, valid };

// sizes: every file exists, has the recorded size and a consistent index. checksums: every byte is
// read too, which finds any change at disk speed; once a run on one rank is enough.
enum class Verify : std::uint8_t { sizes, checksums };

class PreparedData {
 public:
  // IoError names the file that is missing, truncated or changed.
  PreparedData(const std::filesystem::path& folder, Verify verify);

  const std::filesystem::path& folder() const { return folder_; }
  const Manifest& manifest() const { return manifest_; }
  std::int64_t vocabulary() const { return manifest_.tokenizer.vocabulary; }
  const SplitRecord& record(Split split) const {
    return split == Split::train ? manifest_.train : manifest_.valid;
  }
  // Opens the shards; the split may be empty.
  TokenStream stream(Split split) const;

 private:
  std::filesystem::path folder_;
  Manifest manifest_;
};

}  // namespace fulcrum::data
