#include "data/man_escapes.h"

#include <algorithm>
#include <cstdlib>
#include <unordered_map>

namespace fulcrum::data {
namespace {

const std::unordered_map<std::string_view, std::string_view> kCharacters = {
    {"aq", "'"}, {"dq", "\""}, {"cq", "’"}, {"oq", "‘"},  {"lq", "“"}, {"rq", "”"}, {"ga", "`"},
    {"ha", "^"}, {"ti", "~"},  {"em", "—"}, {"en", "–"},  {"hy", "-"}, {"mi", "−"}, {"bu", "•"},
    {"co", "©"}, {"rg", "®"},  {"tm", "™"}, {"rs", "\\"}, {"sl", "/"}, {"ul", "_"}, {"bv", "|"},
    {"ba", "|"}, {"br", "|"},  {"at", "@"}, {"sh", "#"},  {"Do", "$"}, {"lB", "["}, {"rB", "]"},
    {"lC", "{"}, {"rC", "}"},  {"la", "⟨"}, {"ra", "⟩"},  {"->", "→"}, {"<-", "←"}, {">=", "≥"},
    {"<=", "≤"}, {"!=", "≠"},  {"mu", "×"}, {"pl", "+"},  {"+-", "±"}, {"de", "°"}, {"ss", "ß"},
    {"12", "½"}, {"14", "¼"},  {"34", "¾"}, {"'e", "é"},  {"`e", "è"}, {"'a", "á"}, {"`a", "à"},
    {":a", "ä"}, {":o", "ö"},  {":u", "ü"}, {":A", "Ä"},  {":O", "Ö"}, {":U", "Ü"}, {"/o", "ø"},
    {"oa", "å"}, {",c", "ç"},  {"~n", "ñ"}, {"sc", "§"},  {"dg", "†"}, {"Fo", "«"}, {"Fc", "»"}};

std::string utf8(unsigned long point) {
  std::string out;
  if (point < 0x80) {
    out += static_cast<char>(point);
  } else if (point < 0x800) {
    out += static_cast<char>(0xc0 | point >> 6);
  } else if (point < 0x10000) {
    if (point >= 0xd800 && point < 0xe000) return "";
    out += static_cast<char>(0xe0 | point >> 12);
    out += static_cast<char>(0x80 | (point >> 6 & 0x3f));
  } else if (point < 0x110000) {
    out += static_cast<char>(0xf0 | point >> 18);
    out += static_cast<char>(0x80 | (point >> 12 & 0x3f));
    out += static_cast<char>(0x80 | (point >> 6 & 0x3f));
  } else {
    return "";
  }
  if (point >= 0x80) out += static_cast<char>(0x80 | (point & 0x3f));
  return out;
}

std::string character(std::string_view name) {
  if (const auto known = kCharacters.find(name); known != kCharacters.end()) {
    return std::string(known->second);
  }
  if (name.size() >= 5 && name[0] == 'u') {
    return utf8(std::strtoul(std::string(name.substr(1)).c_str(), nullptr, 16));
  }
  return "";
}

// Reads the name after an escape letter at `i`: x, (xx or [xxx]. Leaves `i` after it.
std::string_view name_at(std::string_view text, std::size_t& i) {
  if (i >= text.size()) return {};
  std::size_t begin = i, count = 1;
  if (text[i] == '(') {
    begin = i + 1;
    count = 2;
    i = begin + 2;
  } else if (text[i] == '[') {
    begin = i + 1;
    const std::size_t end = std::min(text.find(']', begin), text.size());
    count = end - begin;
    i = end + 1;
  } else {
    ++i;
  }
  return begin < text.size() ? text.substr(begin, count) : std::string_view{};
}

}  // namespace

std::string unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      if (text[i] != '\\') out += text[i];
      ++i;
      continue;
    }
    const char c = text[i + 1];
    i += 2;
    switch (c) {
      case '"':
      case '#':
        return out;  // comment
      case '-':
        out += '-';
        break;
      case '\'':
        out += '\'';
        break;
      case '`':
        out += '`';
        break;
      case 'e':
      case '\\':
      case 'E':
        out += '\\';
        break;
      case ' ':
      case '~':
      case '0':
        out += ' ';
        break;
      case 't':
        out += '\t';
        break;
      case '(':
      case '[':
        --i;
        out += character(name_at(text, i));
        break;
      case '*': {
        const std::string_view name = name_at(text, i);
        if (name == "lq" || name == "L\"" || name == "R\"" || name == "rq") out += '"';
        if (name == "C`" || name == "C'") out += '"';
        if (name == "--" || name == "-") out += '-';
        break;
      }
      case 'f':
      case 'F':
      case 'm':
      case 'M':
      case 'n':
      case 'g':
      case 'k':
      case 'V':
      case 'Y':
        if (c == 'n' && i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
        name_at(text, i);
        break;
      case 's':
        if (i < text.size() && (text[i] == '+' || text[i] == '-')) ++i;
        if (i < text.size() && (text[i] == '(' || text[i] == '[')) {
          name_at(text, i);
        } else if (i < text.size()) {
          ++i;
        }
        break;
      case 'h':
      case 'v':
      case 'w':
      case 'l':
      case 'L':
      case 'D':
      case 'o':
      case 'b':
      case 'A':
      case 'B':
      case 'C':
      case 'H':
      case 'N':
      case 'R':
      case 'S':
      case 'X':
      case 'Z':
      case 'x':
        if (i < text.size()) {  // delimited argument
          const char delimiter = text[i];
          i = std::min(text.find(delimiter, i + 1), text.size() - 1) + 1;
        }
        break;
      default:  // some print nothing, the rest themselves
        if (std::string_view("&|^/,c%:){}adurpz!?").find(c) == std::string_view::npos) out += c;
        continue;
    }
    // A name of one character may take several bytes.
    while (i < text.size() && (text[i] & 0xc0) == 0x80) ++i;
  }
  return out;
}

std::vector<std::string> arguments(std::string_view line) {
  std::vector<std::string> words;
  for (std::size_t i = 0; i < line.size();) {
    if (line[i] == ' ' || line[i] == '\t') {
      ++i;
      continue;
    }
    if (line.substr(i, 2) == "\\\"") break;
    std::string word;
    if (line[i] == '"') {
      for (++i; i < line.size(); ++i) {
        if (line[i] == '"' && (i + 1 == line.size() || line[i + 1] != '"')) break;
        if (line[i] == '"') ++i;
        word += line[i];
      }
      ++i;
    } else {
      for (; i < line.size() && line[i] != ' ' && line[i] != '\t'; ++i) {
        word += line[i];
        if (line[i] == '\\' && i + 1 < line.size()) word += line[++i];
      }
    }
    words.push_back(unescape(word));
  }
  return words;
}

}  // namespace fulcrum::data
