#include "data/utf8.h"

#include <utf8proc.h>

#include <cstring>

namespace fulcrum::data {

std::size_t invalid_utf8(std::string_view text) {
  const auto* const begin = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  std::size_t i = 0;
  while (i < text.size()) {
    if (text.size() - i >= 8) {
      std::uint64_t word;
      std::memcpy(&word, begin + i, sizeof word);
      if ((word & 0x8080808080808080u) == 0) {
        i += 8;
        continue;
      }
    }
    if (begin[i] < 0x80) {
      ++i;
      continue;
    }
    utf8proc_int32_t point = 0;
    const auto used =
        utf8proc_iterate(begin + i, static_cast<utf8proc_ssize_t>(text.size() - i), &point);
    if (used <= 0) return i;
    i += static_cast<std::size_t>(used);
  }
  return std::string_view::npos;
}

}  // namespace fulcrum::data
