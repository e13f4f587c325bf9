#pragma once
// Escape sequences of troff, and the arguments of its requests. Internal to man_text.

#include <string>
#include <string_view>
#include <vector>

namespace fulcrum::data {

// The text that escapes stand for, as UTF-8: characters by name (\(em, \[u2014]) and quoted ones.
// Escapes that only set a font, a size or a motion give nothing; a comment ends the text.
std::string unescape(std::string_view text);

// The words behind a request's name, quoted ones as one, without escapes.
std::vector<std::string> arguments(std::string_view line);

}  // namespace fulcrum::data
