#include "data/tokenizer.h"

#include "framework/core/error.h"

namespace fulcrum::data {

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  encoder()->encode(text, ids);
  return ids;
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder,
                                          const TokenizerRecord& record) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (record.kind == "bytes") {
    tokenizer = make_byte_tokenizer();
  } else if (record.kind == "sentencepiece") {
    tokenizer = load_sentencepiece(folder / record.file);
  } else {
    throw IoError(fmt::format("{}: tokenizer kind '{}'; this program knows bytes and sentencepiece",
                              (folder / kManifestName).string(), record.kind));
  }
  if (tokenizer->vocabulary() != record.vocabulary) {
    throw IoError(fmt::format("{}: {} entries; {} records a vocabulary of {}",
                              (folder / record.file).string(), tokenizer->vocabulary(),
                              kManifestName, record.vocabulary));
  }
  return tokenizer;
}

}  // namespace fulcrum::data
