#include "framework/config/scalar.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace fulcrum::config {
namespace {

bool is_plain_scalar(const Value& value) {
  return value.kind == Value::Kind::scalar && !value.quoted;
}

template <class T>
bool parse_integer(std::string_view text, T& out) {
  if (text.substr(0, 2) == "+-") return false;
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  int base = 10;
  if (text.substr(0, 2) == "0x") base = 16;
  if (text.substr(0, 2) == "0o") base = 8;
  if (base != 10) text.remove_prefix(2);
  if (text.empty() || (base != 10 && text.front() == '-')) return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  return error == std::errc() && end == text.data() + text.size();
}

bool parse_real(std::string_view text, double& out) {
  const bool negative = !text.empty() && text.front() == '-';
  if (!text.empty() && (text.front() == '+' || negative)) text.remove_prefix(1);
  if (text == ".inf") {
    out = negative ? -std::numeric_limits<double>::infinity()
                   : std::numeric_limits<double>::infinity();
    return true;
  }
  if (text == ".nan") {
    out = std::numeric_limits<double>::quiet_NaN();
    return true;
  }
  // from_chars also knows "inf" and "nan", which YAML does not.
  if (text.empty() || !(text.front() == '.' || (text.front() >= '0' && text.front() <= '9')))
    return false;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  if (negative) out = -out;
  return true;
}

}  // namespace

template <class T>
bool parse_scalar(const Value& value, T& out) {
  if constexpr (std::is_same_v<T, std::string>) {
    if (value.kind != Value::Kind::scalar) return false;
    out = value.text;
    return true;
  } else {
    if (!is_plain_scalar(value)) return false;
    if constexpr (std::is_same_v<T, bool>) {
      out = value.text == "true";
      return out || value.text == "false";
    } else if constexpr (std::is_same_v<T, double>) {
      return parse_real(value.text, out);
    } else {
      return parse_integer(value.text, out);
    }
  }
}

template <class T>
Value format_scalar(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return Value::scalar(value, true);
  } else if constexpr (std::is_same_v<T, double>) {
    if (std::isnan(value)) return Value::scalar(".nan");
    if (std::isinf(value)) return Value::scalar(value < 0 ? "-.inf" : ".inf");
    std::string text = fmt::format("{}", value);
    if (text.find_first_of(".e") == std::string::npos) text += ".0";
    return Value::scalar(text);
  } else {
    return Value::scalar(fmt::format("{}", value));
  }
}

template <class T>
std::string type_name() {
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, std::string>) return "text";
  if constexpr (std::is_same_v<T, double>) return "a number";
  if constexpr (std::is_same_v<T, std::uint64_t>) return "an integer of at least 0";
  return "an integer";
}

template <class T>
std::string hint(const Value& value) {
  if (!is_plain_scalar(value)) return "";
  if constexpr (std::is_same_v<T, bool>) {
    for (const char* word : {"yes", "on", "True", "TRUE", "1"})
      if (value.text == word) return "; write true";
    for (const char* word : {"no", "off", "False", "FALSE", "0"})
      if (value.text == word) return "; write false";
  } else if constexpr (std::is_arithmetic_v<T>) {
    std::string digits = value.text;
    std::erase(digits, '_');
    double number = 0;
    if (!parse_real(digits, number) || !std::isfinite(number)) return "";
    if (std::is_same_v<T, double>) return fmt::format("; write {}", digits);
    if (std::is_unsigned_v<T> && number < 0) return "";
    if (number == std::floor(number) && std::abs(number) < 1e15)
      return fmt::format("; write {}", static_cast<std::int64_t>(number));
  }
  return "";
}

#define FULCRUM_SCALAR(T)                          \
  template bool parse_scalar<T>(const Value&, T&); \
  template Value format_scalar<T>(const T&);       \
  template std::string type_name<T>();             \
  template std::string hint<T>(const Value&);
FULCRUM_SCALAR(bool)
FULCRUM_SCALAR(int)
FULCRUM_SCALAR(std::int64_t)
FULCRUM_SCALAR(std::uint64_t)
FULCRUM_SCALAR(double)
FULCRUM_SCALAR(std::string)
#undef FULCRUM_SCALAR

}  // namespace fulcrum::config
