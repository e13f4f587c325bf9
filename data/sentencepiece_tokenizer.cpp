#include <sentencepiece_processor.h>

#include <fstream>
#include <iterator>
#include <unordered_map>

#include "data/sentencepiece_model.h"
#include "data/tokenizer.h"
#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

using sentencepiece::SentencePieceProcessor;

void check(const sentencepiece::util::Status& status, const std::string& file) {
  if (!status.ok()) throw UserError(fmt::format("{}: {}", file, status.message()));
}

void append_ids(const SentencePieceProcessor& processor, std::string_view text,
                std::vector<int>& scratch, std::vector<std::int32_t>& out) {
  const auto status = processor.Encode(absl::string_view(text.data(), text.size()), &scratch);
  FULCRUM_CHECK(status.ok(), "SentencePiece: {}", status.message());
  out.insert(out.end(), scratch.begin(), scratch.end());
}

// Hands whole texts to the library.
class WholeTextEncoder final : public Encoder {
 public:
  explicit WholeTextEncoder(const SentencePieceProcessor& processor) : processor_(processor) {}
  void encode(std::string_view text, std::vector<std::int32_t>& out) override {
    append_ids(processor_, text, scratch_, out);
  }

 private:
  const SentencePieceProcessor& processor_;
  std::vector<int> scratch_;
};

// For models that split at blanks: hands words to the library and remembers their ids. Text repeats
// its words, so this is many times faster than encoding whole texts, and memory does not grow with
// a document's length.
class WordEncoder final : public Encoder {
 public:
  WordEncoder(const SentencePieceProcessor& processor, bool dummy_prefix)
      : processor_(processor), dummy_prefix_(dummy_prefix) {}

  void encode(std::string_view text, std::vector<std::int32_t>& out) override {
    if (text.empty()) return;
    std::size_t begin = 0;
    if (dummy_prefix_) {
      // The prefix is a blank: it joins the first word, unless that is a control blank.
      if (!is_control(text[0])) begin = word_end(text, 0);
      std::string first(1, ' ');
      first.append(text.substr(0, begin));
      encode_word(first, out);
    }
    while (begin < text.size()) {
      const std::size_t end = word_end(text, begin);
      encode_word(text.substr(begin, end - begin), out);
      begin = end;
    }
  }

 private:
  static constexpr std::size_t kLongestKept = 48;  // bytes of a word
  static constexpr std::size_t kMostKept = std::size_t{1}
                                           << 18;  // words; then the memory starts afresh

  struct Hash {
    using is_transparent = void;
    std::size_t operator()(std::string_view word) const {
      return std::hash<std::string_view>{}(word);
    }
  };
  struct Range {
    std::uint32_t begin, count;
  };

  static bool is_control(char c) { return c >= 0x09 && c <= 0x0d; }

  // First cut after `begin` in the sense of splits_at_blanks.
  static std::size_t word_end(std::string_view text, std::size_t begin) {
    const bool control = is_control(text[begin]);
    std::size_t i = begin + 1;
    for (; i < text.size(); ++i) {
      const char c = text[i];
      if (is_control(c) != control) break;
      // "▁" in the text is a blank to SentencePiece.
      if (c == ' ' && text[i - 1] != ' ' && !text.substr(begin, i - begin).ends_with("\u2581"))
        break;
    }
    return i;
  }

  void encode_word(std::string_view word, std::vector<std::int32_t>& out) {
    if (word.size() > kLongestKept) {
      append_ids(processor_, word, scratch_, out);
      return;
    }
    if (const auto known = words_.find(word); known != words_.end()) {
      const auto first = ids_.begin() + known->second.begin;
      out.insert(out.end(), first, first + known->second.count);
      return;
    }
    if (words_.size() == kMostKept) {
      words_.clear();
      ids_.clear();
    }
    const std::size_t begin = ids_.size();
    append_ids(processor_, word, scratch_, ids_);
    words_.emplace(word, Range{static_cast<std::uint32_t>(begin),
                               static_cast<std::uint32_t>(ids_.size() - begin)});
    out.insert(out.end(), ids_.begin() + static_cast<std::ptrdiff_t>(begin), ids_.end());
  }

  const SentencePieceProcessor& processor_;
  const bool dummy_prefix_;
  std::unordered_map<std::string, Range, Hash, std::equal_to<>> words_;
  std::vector<std::int32_t> ids_;
  std::vector<int> scratch_;
};

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::filesystem::path& path) {
    const std::string file = path.string();
    std::ifstream in(path, std::ios::binary);
    if (!in) throw UserError(fmt::format("{}: cannot open the SentencePiece model", file));
    const std::string bytes{std::istreambuf_iterator<char>(in), {}};
    model_ = parse_sentencepiece_model(bytes, file);
    check(processor_.LoadFromSerializedProto(bytes), file);
    split_ = splits_at_blanks(model_);
    if (split_) check(word_processor_.LoadFromSerializedProto(without_dummy_prefix(bytes)), file);
    if (processor_.eos_id() < 0) {
      throw UserError(fmt::format(
          "{}: the model has no end-of-sentence piece (eos_id), which marks the end of a document",
          file));
    }
  }

  std::string_view kind() const override { return "sentencepiece"; }
  std::int64_t vocabulary() const override { return processor_.GetPieceSize(); }
  std::int32_t end_of_document() const override { return processor_.eos_id(); }
  std::int32_t pad() const override {
    return processor_.pad_id() >= 0 ? processor_.pad_id() : processor_.eos_id();
  }

  std::unique_ptr<Encoder> encoder() const override {
    if (split_) return std::make_unique<WordEncoder>(word_processor_, model_.add_dummy_prefix);
    return std::make_unique<WholeTextEncoder>(processor_);
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::vector<int> kept;
    kept.reserve(ids.size());
    for (const std::int32_t id : ids) {
      check_id(id);
      if (!processor_.IsControl(id)) kept.push_back(id);
    }
    std::string text;
    const auto status = processor_.Decode(kept, &text);
    FULCRUM_CHECK(status.ok(), "SentencePiece: {}", status.message());
    return text;
  }

  std::string piece(std::int32_t id) const override {
    check_id(id);
    return processor_.IdToPiece(id);
  }

  std::string text(std::int32_t id) const override {
    std::string result = piece(id);
    if (processor_.IsControl(id) || processor_.IsUnknown(id)) return result;
    if (processor_.IsByte(id)) {
      const int byte = std::stoi(result.substr(3, 2), nullptr, 16);  // "<0x0A>"
      return byte < 128 ? std::string(1, static_cast<char>(byte)) : "\uFFFD";
    }
    constexpr std::string_view kBlank = "\u2581";
    for (std::size_t at = 0; (at = result.find(kBlank, at)) != std::string::npos; ++at) {
      result.replace(at, kBlank.size(), 1, ' ');
    }
    return result;
  }

 private:
  void check_id(std::int32_t id) const {
    FULCRUM_REQUIRE(id >= 0 && id < vocabulary(), "tokenizer: ids lie in [0, {}); got {}",
                    vocabulary(), id);
  }

  SentencePieceModel model_;
  SentencePieceProcessor processor_;
  SentencePieceProcessor word_processor_;  // without dummy prefix
  bool split_ = false;
};

}  // namespace

std::unique_ptr<Tokenizer> load_sentencepiece(const std::filesystem::path& model) {
  return std::make_unique<SentencePieceTokenizer>(model);
}

}  // namespace fulcrum::data
