#pragma once
// English-like text of chosen words, with punctuation, digits, indented lines and some other
// scripts.

#include <cstdint>
#include <string>

#include "framework/core/philox.h"

namespace fulcrum::testing {

inline std::string sample_text(int words, std::uint64_t seed) {
  static const char* const kWords[] = {
      "the",   "of",      "and",     "memory",   "expert",     "router",  "table",   "token",
      "Hello", "hashing", "hashed",  "hashes",   "sequential", "reading", "reader",  "readers",
      "café",  "naïve",   "Ünïcode", "Привет",   "数据",       "42",      "2026",    "x+=1;",
      "don't", "(see",    "below)",  "gradient", "gradients",  "ascent",  "descent", "a"};
  const Random random(seed, 0);
  std::string text;
  for (int i = 0; i < words; ++i) {
    text += kWords[random.below(static_cast<std::uint64_t>(2 * i), 32)];
    switch (random.below(static_cast<std::uint64_t>(2 * i + 1), 16)) {
      case 0:
        text += ".\n";
        break;
      case 1:
        text += ",\n    ";
        break;
      case 2:
        text += "\t";
        break;
      case 3:
        text += "  ";
        break;
      case 4:
        text += "\n\n";
        break;
      default:
        text += " ";
    }
  }
  return text;
}

}  // namespace fulcrum::testing
