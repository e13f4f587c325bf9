#pragma once
// Training of a SentencePiece model on a sample of a corpus.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace fulcrum::data {

enum class SentencePieceKind : std::uint8_t { bpe, unigram };

struct TokenizerTraining {
  SentencePieceKind kind = SentencePieceKind::bpe;
  std::int64_t vocabulary = 16384;
  double character_coverage = 0.9995;  // of the sample's characters; the rest are spelled in bytes
};

// A uniform sample of the lines of a stream of unknown length, in bounded memory: each line draws a
// random number from (seed, line number) and stays while it lies below a threshold that halves
// whenever the sample outgrows its bytes. Lines are cut at tabs, and at blanks when they are long.
class LineSample {
 public:
  LineSample(std::int64_t max_bytes, std::uint64_t seed) : max_bytes_(max_bytes), seed_(seed) {}

  void add(std::string_view text);
  std::int64_t bytes() const { return bytes_; }
  // In the order of the stream.
  std::vector<std::string> lines() const;

 private:
  void add_line(std::string_view line);

  struct Line {
    std::uint32_t draw;
    std::string text;
  };
  std::int64_t max_bytes_;
  std::uint64_t seed_;
  std::uint64_t seen_ = 0;
  std::uint64_t threshold_ = std::uint64_t{1} << 32;
  std::int64_t bytes_ = 0;
  std::map<std::uint64_t, Line> kept_;  // by line number
};

// Trains and returns the bytes of a .model file: <unk> 0, </s> 1 (end of document), <pad> 2,
// newline and tab as symbols of their own, all 256 bytes as a fallback, digits apart, and no
// normalisation: decoding gives back the text. The result depends on the sample and the options
// alone. UserError when the sample is empty or the vocabulary too small for its characters; a
// sample too small for the vocabulary gives a smaller one.
std::string train_sentencepiece(const std::vector<std::string>& sample,
                                const TokenizerTraining& options);

}  // namespace fulcrum::data
