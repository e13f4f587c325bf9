#pragma once

#include <cstdint>
#include <string_view>

namespace fulcrum::data {

// Offset of the first byte that is no part of well-formed UTF-8 (Unicode 15, table 3-7); npos when
// all is.
std::size_t invalid_utf8(std::string_view text);

}  // namespace fulcrum::data
