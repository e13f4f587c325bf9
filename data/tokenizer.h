#pragma once
// Text to token ids and back.
//
// Two kinds: `bytes` (the 256 byte values, then end of document and pad) and `sentencepiece` (a
// .model file of Google's SentencePiece, own or foreign). Ids of documents never contain the
// end-of-document id; who stores documents appends it.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/manifest.h"

namespace fulcrum::data {

// Encodes texts one after another; keeps scratch and caches, so each thread uses its own.
class Encoder {
 public:
  virtual ~Encoder() = default;
  // Appends the ids of a text (valid UTF-8) to `out`.
  virtual void encode(std::string_view text, std::vector<std::int32_t>& out) = 0;
};

// Immutable and safe to share between threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual std::string_view kind() const = 0;
  virtual std::int64_t vocabulary() const = 0;
  virtual std::int32_t end_of_document() const = 0;
  virtual std::int32_t pad() const = 0;

  virtual std::unique_ptr<Encoder> encoder() const = 0;
  std::vector<std::int32_t> encode(std::string_view text) const;

  // Text of the ids; end of document and pad give nothing. ArgumentError for ids outside the
  // vocabulary.
  virtual std::string decode(std::span<const std::int32_t> ids) const = 0;
  // The entry as the vocabulary spells it: "▁the", "<0x0A>", "</s>".
  virtual std::string piece(std::int32_t id) const = 0;
  // The entry decoded alone, special tokens kept: " the", "\n", "</s>"; a byte that is no character
  // by itself gives U+FFFD.
  virtual std::string text(std::int32_t id) const = 0;
};

std::unique_ptr<Tokenizer> make_byte_tokenizer();

// UserError when the file is no SentencePiece model or lacks an end-of-sentence piece, which serves
// as end of document.
std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& model);

// The tokenizer of a prepared folder.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder,
                                          const TokenizerRecord& record);

}  // namespace fulcrum::data
