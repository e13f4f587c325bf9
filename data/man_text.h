#pragma once
// Plain text of a manual page in troff markup with the man or mdoc macros.

#include <string>
#include <string_view>

namespace fulcrum::data {

// Removes requests, macros, escapes, definitions and conditional blocks, and keeps headings,
// paragraphs and the words of every macro's arguments. Not a formatter: lines stay as they are
// written. A page that only refers to another (".so man1/x.1") gives an empty text.
std::string strip_troff(std::string_view page);

}  // namespace fulcrum::data
