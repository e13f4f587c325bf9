#pragma once
// Element types of tensors, and the dispatch from a runtime dtype to a C++ type.

#include <bit>
#include <cstdint>
#include <string_view>

#include "framework/core/error.h"

namespace fulcrum {

enum class DType : std::uint8_t { f64, f32, bf16, i64, i32, u16, u8 };

// bfloat16: the upper half of an IEEE float, rounded to nearest even; NaN stays NaN.
struct BFloat16 {
  std::uint16_t bits = 0;

  BFloat16() = default;
  explicit BFloat16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<std::uint16_t>((u >> 16) | 0x0040u);
    } else {
      bits = static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
    }
  }
  explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::u16:
      return 2;
    case DType::u8:
      return 1;
  }
  return 0;
}

constexpr bool is_floating(DType dtype) {
  return dtype == DType::f64 || dtype == DType::f32 || dtype == DType::bf16;
}

constexpr std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return "f64";
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::i64:
      return "i64";
    case DType::i32:
      return "i32";
    case DType::u16:
      return "u16";
    case DType::u8:
      return "u8";
  }
  return "?";
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::uint16_t> {
  static constexpr DType value = DType::u16;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};

template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

// Calls fn.template operator()<T>() with T = double or float; other dtypes have no CPU kernel.
//   dispatch_floating("rms_norm", x.dtype(), [&]<class T>() { kernel<T>(…); });
template <class Fn>
decltype(auto) dispatch_floating(const char* op, DType dtype, Fn&& fn) {
  if (dtype == DType::f64) return fn.template operator()<double>();
  FULCRUM_REQUIRE(dtype == DType::f32, "{}: the CPU computes in f32 or f64; got {}", op,
                  name_of(dtype));
  return fn.template operator()<float>();
}

}  // namespace fulcrum

template <>
struct fmt::formatter<fulcrum::DType> : fmt::formatter<std::string_view> {
  auto format(fulcrum::DType dtype, fmt::format_context& context) const {
    return fmt::formatter<std::string_view>::format(fulcrum::name_of(dtype), context);
  }
};
