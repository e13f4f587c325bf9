#include "data/tokenizer.h"
#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

constexpr std::int32_t kEndOfDocument = 256;
constexpr std::int32_t kPad = 257;
constexpr std::int64_t kVocabulary = 258;

class ByteEncoder final : public Encoder {
 public:
  void encode(std::string_view text, std::vector<std::int32_t>& out) override {
    out.reserve(out.size() + text.size());
    for (const char c : text) out.push_back(static_cast<unsigned char>(c));
  }
};

class ByteTokenizer final : public Tokenizer {
 public:
  std::string_view kind() const override { return "bytes"; }
  std::int64_t vocabulary() const override { return kVocabulary; }
  std::int32_t end_of_document() const override { return kEndOfDocument; }
  std::int32_t pad() const override { return kPad; }
  std::unique_ptr<Encoder> encoder() const override { return std::make_unique<ByteEncoder>(); }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const std::int32_t id : ids) {
      check(id);
      if (id < kEndOfDocument) text.push_back(static_cast<char>(id));
    }
    return text;
  }

  std::string piece(std::int32_t id) const override {
    check(id);
    if (id == kEndOfDocument) return "</s>";
    if (id == kPad) return "<pad>";
    return fmt::format("<0x{:02X}>", id);
  }

  std::string text(std::int32_t id) const override {
    check(id);
    if (id >= kEndOfDocument) return piece(id);
    return id < 128 ? std::string(1, static_cast<char>(id)) : "\uFFFD";
  }

 private:
  static void check(std::int32_t id) {
    FULCRUM_REQUIRE(id >= 0 && id < kVocabulary, "tokenizer: ids lie in [0, {}); got {}",
                    kVocabulary, id);
  }
};

}  // namespace

std::unique_ptr<Tokenizer> make_byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

}  // namespace fulcrum::data
