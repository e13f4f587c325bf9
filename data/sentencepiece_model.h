#pragma once
// The parts of a SentencePiece .model file (sentencepiece_model.proto) that its library does not
// show.

#include <string>
#include <string_view>
#include <vector>

namespace fulcrum::data {

struct SentencePieceModel {
  enum Type : int {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };
  struct Piece {
    std::string text;
    int type = kNormal;
  };
  std::vector<Piece> pieces;
  // Trainer.
  bool whitespace_as_suffix = false;
  bool byte_fallback = false;
  // Normalizer.
  bool has_character_map = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// UserError (naming `file`) when the bytes are no such message.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& file);

// The same model without the blank that SentencePiece puts before every text.
std::string without_dummy_prefix(std::string_view model);

// True when the ids of a text are those of its parts one after another, for every cut between two
// characters of which
//   - the second is a blank and the first is not, or
//   - exactly one is a control blank (tab, newline, vertical tab, form feed, carriage return).
// It holds when no piece contains such a place, unknown characters fall back to bytes, and the
// normalizer, the dummy prefix aside, only turns blanks into "▁".
bool splits_at_blanks(const SentencePieceModel& model);

}  // namespace fulcrum::data
