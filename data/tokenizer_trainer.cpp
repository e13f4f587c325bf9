#include "data/tokenizer_trainer.h"

#include <sentencepiece_trainer.h>

#include <unordered_map>

#include "framework/core/error.h"
#include "framework/core/philox.h"

namespace fulcrum::data {
namespace {

constexpr std::size_t kLongLine = 2048;

class VectorIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit VectorIterator(const std::vector<std::string>& lines) : lines_(lines) {}
  bool done() const override { return at_ == lines_.size(); }
  void Next() override { ++at_; }
  const std::string& value() const override { return lines_[at_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& lines_;
  std::size_t at_ = 0;
};

}  // namespace

void LineSample::add(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of("\n\t\r"), text.size());
    std::string_view line = text.substr(0, end);
    while (line.size() > kLongLine) {
      const std::size_t blank = line.rfind(' ', kLongLine);
      std::size_t cut = blank == std::string_view::npos || blank == 0 ? kLongLine : blank;
      while (cut > 1 && (line[cut] & 0xc0) == 0x80) --cut;
      add_line(line.substr(0, cut));
      line.remove_prefix(cut);
    }
    add_line(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

void LineSample::add_line(std::string_view line) {
  if (line.find_first_not_of(' ') == std::string_view::npos) return;
  const std::uint64_t number = seen_++;
  static const std::uint64_t stream = stream_of("tokenizer sample");
  const std::uint32_t draw = Random(seed_, stream).bits(number);
  if (draw >= threshold_) return;
  kept_.emplace_hint(kept_.end(), number, Line{draw, std::string(line)});
  bytes_ += static_cast<std::int64_t>(line.size());
  while (bytes_ > max_bytes_ && kept_.size() > 1) {
    threshold_ /= 2;
    std::erase_if(kept_, [&](const auto& entry) {
      const bool drop = entry.second.draw >= threshold_;
      if (drop) bytes_ -= static_cast<std::int64_t>(entry.second.text.size());
      return drop;
    });
  }
}

std::vector<std::string> LineSample::lines() const {
  std::vector<std::string> lines;
  lines.reserve(kept_.size());
  for (const auto& [number, line] : kept_) lines.push_back(line.text);
  return lines;
}

std::string train_sentencepiece(const std::vector<std::string>& sample,
                                const TokenizerTraining& options) {
  if (sample.empty()) {
    throw UserError("the inputs hold no text to train a tokenizer on");
  }
  const std::unordered_map<std::string, std::string> arguments = {
      {"model_type", options.kind == SentencePieceKind::bpe ? "bpe" : "unigram"},
      {"vocab_size", std::to_string(options.vocabulary)},
      {"hard_vocab_limit", "false"},
      {"character_coverage", fmt::format("{}", options.character_coverage)},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"allow_whitespace_only_pieces", "true"},
      {"normalization_rule_name", "identity"},
      {"add_dummy_prefix", "false"},
      {"remove_extra_whitespaces", "false"},
      {"user_defined_symbols", "\n,\t"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"pad_id", "2"},
      {"bos_id", "-1"},
      {"max_sentence_length", "1000000"},
      // Fixed: the number of threads divides the sums of unigram training.
      {"num_threads", "2"},
      {"minloglevel", "2"},
  };
  VectorIterator lines(sample);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(arguments, &lines, &model);
  if (!status.ok()) {
    throw UserError(fmt::format("training a tokenizer of {} entries on {} lines: {}",
                                options.vocabulary, sample.size(), status.message()));
  }
  return model;
}

}  // namespace fulcrum::data
