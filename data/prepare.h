#pragma once
// Text in, a prepared folder out: tokenizer, token shards of the train and validation splits,
// manifest.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "data/manifest.h"
#include "data/text_source.h"
#include "data/tokenizer_trainer.h"

namespace fulcrum::data {

struct PrepareOptions {
  TextSourceOptions source;  // the corpus
  std::vector<std::string>
      valid_inputs;  // documents of the validation split; then valid_fraction is not used
  // A document belongs to validation when a hash of its text and the seed falls below this: equal
  // documents stay together, and the split does not depend on order or threads.
  double valid_fraction = 0.01;
  enum class TokenizerKind : std::uint8_t { train, bytes, file } tokenizer = TokenizerKind::train;
  std::filesystem::path model;                         // for `file`
  TokenizerTraining training;                          // for `train`
  std::int64_t sample_bytes = std::int64_t{16} << 20;  // of text that the tokenizer is trained on
  std::uint64_t seed = 0;
  std::int64_t shard_tokens = std::int64_t{1}
                              << 31;  // a new shard begins with the document after so many
  int threads = 0;                    // encoders; 0: one a core
};

struct PrepareProgress {
  enum class Phase : std::uint8_t { sample, train_tokenizer, encode } phase = Phase::sample;
  std::int64_t input_bytes = 0;   // of the stored files, read so far in this phase
  std::int64_t total_bytes = -1;  // -1: unknown
  std::int64_t text_bytes = 0, documents = 0, tokens = 0;  // so far in this phase
};

struct PrepareResult {
  Manifest manifest;
  std::int64_t skipped = 0;  // documents left out (skip_invalid)
};

// Fills an existing, empty folder. `report` is called from the calling thread after every document
// or so; it decides what to show.
PrepareResult prepare(const PrepareOptions& options, const std::filesystem::path& folder,
                      const std::function<void(const PrepareProgress&)>& report);

}  // namespace fulcrum::data
