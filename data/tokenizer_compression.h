#pragma once
// Tokenizer compression of DSE (Engram section 2.2, appendix C; reference implementation
// engram_demo_v1.py): tokens whose text is the same after normalisation share one compressed id,
// and n-gram hashes are built on those.
//
// Raw ids are walked in ascending order; the first appearance of a key takes the next compressed
// id, so the map is a function of the vocabulary alone. The key of a token is
//   - its raw spelling, when its text alone holds U+FFFD (a part of a character);
//   - otherwise its text after NFKC, NFD, removal of marks, lower case, runs of blank, tab, CR and
//   LF made one blank, and
//     stripping of white space (a lone blank stays);
//   - or the unchanged text when that leaves nothing.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace fulcrum::data {

struct TokenizerCompression {
  std::vector<std::int32_t> compressed;  // by raw id
  std::int64_t size = 0;                 // number of compressed ids: |V'|
};

TokenizerCompression compress_tokenizer(const Tokenizer& tokenizer);

// The chain of normalisations alone. ArgumentError when the text is not UTF-8.
std::string normalize_token(std::string_view text);

}  // namespace fulcrum::data
