#include "data/tokenizer_compression.h"

#include <string>
#include <vector>

#include "framework/core/error.h"
#include "tests/catch.h"

using namespace fulcrum;
using namespace fulcrum::data;

namespace {

// A vocabulary given by its spellings; "\xff" marks an entry that is part of a character.
class ListTokenizer final : public Tokenizer {
 public:
  explicit ListTokenizer(std::vector<std::string> texts) : texts_(std::move(texts)) {}
  std::string_view kind() const override { return "list"; }
  std::int64_t vocabulary() const override { return static_cast<std::int64_t>(texts_.size()); }
  std::int32_t end_of_document() const override { return 0; }
  std::int32_t pad() const override { return 0; }
  std::unique_ptr<Encoder> encoder() const override { return nullptr; }
  std::string decode(std::span<const std::int32_t>) const override { return ""; }
  std::string piece(std::int32_t id) const override { return texts_[static_cast<std::size_t>(id)]; }
  std::string text(std::int32_t id) const override {
    const std::string& text = texts_[static_cast<std::size_t>(id)];
    return text[0] == '<' ? "\uFFFD" : text;
  }

 private:
  std::vector<std::string> texts_;
};

}  // namespace

TEST_CASE("token normalisation follows the reference chain", "[unit][data]") {
  CHECK(normalize_token("Hello") == "hello");
  CHECK(normalize_token("  the ") == "the");
  CHECK(normalize_token("É") == "e");
  CHECK(normalize_token("ﬁ") == "fi");  // NFKC
  CHECK(normalize_token("Å") == "a");   // Angstrom sign
  CHECK(normalize_token("ｆｕｌｌ") == "full");
  CHECK(normalize_token("İ") == "i");
  CHECK(normalize_token("ΣΑΣ") == "σασ");  // no final sigma: letter by letter
  CHECK(normalize_token("a \t\r\n b") == "a b");
  CHECK(normalize_token(" ") == " ");
  CHECK(normalize_token("\n\n\t ") == " ");
  CHECK(normalize_token("\u00a0") == " ");      // NFKC makes it a blank
  CHECK(normalize_token("\v") == "");           // stripped, but no blank
  CHECK(normalize_token("\u0301") == "");       // a lone accent
  CHECK(normalize_token("\u0903") == "");       // a spacing mark
  CHECK(normalize_token("a\uE000b") == "a b");  // the sentinel itself
  CHECK(normalize_token("한") == "\u1112\u1161\u11ab");
  CHECK(normalize_token("") == "");
  CHECK_THROWS_AS(normalize_token("\xc3"), ArgumentError);
}

TEST_CASE("first appearance of a key takes the next id", "[unit][data]") {
  const ListTokenizer tokenizer({"the", " The", "a", "<0xC3>", "<0xC4>", " ", "\n", "\t\t",
                                 "\u0301", "\u0302", "THE", "á", "<0xC3>"});
  const auto result = compress_tokenizer(tokenizer);
  CHECK(result.compressed == std::vector<std::int32_t>{0, 0, 1, 2, 3, 4, 4, 4, 5, 6, 0, 1, 2});
  CHECK(result.size == 7);
}

TEST_CASE("byte vocabulary compresses by case and white space", "[unit][data]") {
  const auto result = compress_tokenizer(*make_byte_tokenizer());
  REQUIRE(result.compressed.size() == 258);
  CHECK(result.compressed['A'] == result.compressed['a']);
  CHECK(result.compressed['\n'] == result.compressed[' ']);
  CHECK(result.compressed['\v'] != result.compressed[' ']);
  CHECK(result.compressed[0xc3] != result.compressed[0xc4]);
  // 26 letters lose their case; tab, newline and return join the blank.
  CHECK(result.size == 258 - 26 - 3);
}
