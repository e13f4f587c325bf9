#include "data/sentencepiece_model.h"

#include <cstdint>

#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

constexpr std::string_view kBlank = "\u2581";  // what SentencePiece writes for a blank

struct Malformed {};

// Reads a serialized protocol buffer message field by field.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  int number = 0;
  std::uint64_t value = 0;   // varint fields
  std::string_view content;  // length-delimited fields

  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t tag = varint();
    number = static_cast<int>(tag >> 3);
    switch (tag & 7) {
      case 0:
        value = varint();
        break;
      case 1:
        take(8);
        break;
      case 2:
        content = take(varint());
        break;
      case 5:
        take(4);
        break;
      default:
        throw Malformed{};
    }
    return true;
  }

 private:
  std::uint64_t varint() {
    std::uint64_t result = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      result |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return result;
    }
    throw Malformed{};
  }
  std::string_view take(std::uint64_t bytes) {
    if (bytes > rest_.size()) throw Malformed{};
    const std::string_view part = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return part;
  }

  std::string_view rest_;
};

enum class Kind { blank, control, other };

// Kinds of the characters of a piece, one a character.
std::vector<Kind> kinds_of(std::string_view piece) {
  std::vector<Kind> kinds;
  for (std::size_t i = 0; i < piece.size(); ++i) {
    const auto c = static_cast<unsigned char>(piece[i]);
    if (piece.substr(i, kBlank.size()) == kBlank || c == ' ') {
      kinds.push_back(Kind::blank);
    } else if (c >= 0x09 && c <= 0x0d) {
      kinds.push_back(Kind::control);
    } else if ((c & 0xc0) != 0x80) {
      kinds.push_back(Kind::other);
    }
  }
  return kinds;
}

bool contains_cut(std::string_view piece) {
  const std::vector<Kind> kinds = kinds_of(piece);
  for (std::size_t i = 1; i < kinds.size(); ++i) {
    const bool before_blank = kinds[i] == Kind::blank && kinds[i - 1] != Kind::blank;
    const bool around_control = (kinds[i] == Kind::control) != (kinds[i - 1] == Kind::control);
    if (before_blank || around_control) return true;
  }
  return false;
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& file) {
  SentencePieceModel model;
  try {
    for (Fields field(bytes); field.next();) {
      if (field.number == 1) {
        auto& piece = model.pieces.emplace_back();
        for (Fields part(field.content); part.next();) {
          if (part.number == 1) piece.text = part.content;
          if (part.number == 3) piece.type = static_cast<int>(part.value);
        }
      } else if (field.number == 2) {
        for (Fields part(field.content); part.next();) {
          if (part.number == 24) model.whitespace_as_suffix = part.value != 0;
          if (part.number == 35) model.byte_fallback = part.value != 0;
        }
      } else if (field.number == 3) {
        for (Fields part(field.content); part.next();) {
          if (part.number == 2) model.has_character_map = !part.content.empty();
          if (part.number == 3) model.add_dummy_prefix = part.value != 0;
          if (part.number == 4) model.remove_extra_whitespaces = part.value != 0;
          if (part.number == 5) model.escape_whitespaces = part.value != 0;
        }
      }
    }
  } catch (const Malformed&) {
    throw UserError(fmt::format("{}: not a SentencePiece model", file));
  }
  if (model.pieces.empty()) throw UserError(fmt::format("{}: not a SentencePiece model", file));
  return model;
}

std::string without_dummy_prefix(std::string_view model) {
  // A repeated message field merges into the first: normalizer_spec (3) { add_dummy_prefix (3):
  // false }.
  return std::string(model) + std::string("\x1a\x02\x18\x00", 4);
}

bool splits_at_blanks(const SentencePieceModel& model) {
  if (model.has_character_map || model.remove_extra_whitespaces || !model.escape_whitespaces ||
      model.whitespace_as_suffix || !model.byte_fallback) {
    return false;
  }
  for (const auto& piece : model.pieces) {
    const bool matches_text = piece.type == SentencePieceModel::kNormal ||
                              piece.type == SentencePieceModel::kUserDefined ||
                              piece.type == SentencePieceModel::kUnused;
    if (matches_text && contains_cut(piece.text)) return false;
  }
  return true;
}

}  // namespace fulcrum::data
