#include "data/tokenizer_compression.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>
#include <unordered_map>

#include "framework/core/error.h"

namespace fulcrum::data {
namespace {

// Private-use character that stands for a lone blank while white space is stripped.
constexpr utf8proc_int32_t kSentinel = 0xE000;

using CodePoints = std::vector<utf8proc_int32_t>;

CodePoints decode(std::string_view text) {
  CodePoints points;
  const auto* p = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  for (utf8proc_ssize_t left = static_cast<utf8proc_ssize_t>(text.size()); left > 0;) {
    utf8proc_int32_t point = 0;
    const utf8proc_ssize_t used = utf8proc_iterate(p, left, &point);
    FULCRUM_REQUIRE(used > 0, "normalize_token: the text is not UTF-8");
    points.push_back(point);
    p += used;
    left -= used;
  }
  return points;
}

std::string encode(const CodePoints& points) {
  std::string text;
  utf8proc_uint8_t bytes[4];
  for (const utf8proc_int32_t point : points) {
    const auto n = utf8proc_encode_char(point, bytes);
    text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
  }
  return text;
}

std::string map(std::string_view text, int options) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t n =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                   static_cast<utf8proc_option_t>(options | UTF8PROC_STABLE));
  FULCRUM_REQUIRE(n >= 0, "normalize_token: {}", utf8proc_errmsg(n));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, &std::free);
  return std::string(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(n));
}

bool is_mark(utf8proc_int32_t point) {
  const auto category = utf8proc_category(point);
  return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
         category == UTF8PROC_CATEGORY_ME;
}

// Unicode's White_Space property.
bool is_white_space(utf8proc_int32_t c) {
  return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

}  // namespace

std::string normalize_token(std::string_view text) {
  const std::string composed = map(text, UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
  CodePoints points;
  for (utf8proc_int32_t c : decode(map(composed, UTF8PROC_DECOMPOSE))) {
    if (is_mark(c)) continue;
    c = utf8proc_tolower(c);
    if (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
      if (!points.empty() && points.back() == ' ') continue;
      c = ' ';
    }
    points.push_back(c);
  }
  if (points == CodePoints{' '}) points = {kSentinel};
  std::size_t begin = 0;
  std::size_t end = points.size();
  while (begin < end && is_white_space(points[begin])) ++begin;
  while (end > begin && is_white_space(points[end - 1])) --end;
  CodePoints kept(points.begin() + static_cast<std::ptrdiff_t>(begin),
                  points.begin() + static_cast<std::ptrdiff_t>(end));
  // Like the reference, also where the text itself held the sentinel.
  for (utf8proc_int32_t& c : kept) {
    if (c == kSentinel) c = ' ';
  }
  return encode(kept);
}

TokenizerCompression compress_tokenizer(const Tokenizer& tokenizer) {
  TokenizerCompression result;
  const auto vocabulary = static_cast<std::int32_t>(tokenizer.vocabulary());
  result.compressed.reserve(static_cast<std::size_t>(vocabulary));
  std::unordered_map<std::string, std::int32_t> ids;
  for (std::int32_t raw = 0; raw < vocabulary; ++raw) {
    const std::string text = tokenizer.text(raw);
    std::string key;
    if (text.find("\uFFFD") != std::string::npos) {
      key = tokenizer.piece(raw);
    } else {
      key = normalize_token(text);
      if (key.empty()) key = text;
    }
    const auto next = static_cast<std::int32_t>(ids.size());
    result.compressed.push_back(ids.try_emplace(std::move(key), next).first->second);
  }
  result.size = static_cast<std::int64_t>(ids.size());
  return result;
}

}  // namespace fulcrum::data
