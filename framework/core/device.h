#pragma once
// Where a tensor lives.

#include <fmt/format.h>

#include <cstdint>

namespace fulcrum {

struct Device {
  enum class Kind : std::uint8_t { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;

  bool is_cpu() const { return kind == Kind::cpu; }
  bool operator==(const Device&) const = default;
};

}  // namespace fulcrum

template <>
struct fmt::formatter<fulcrum::Device> : fmt::formatter<std::string_view> {
  auto format(fulcrum::Device device, fmt::format_context& context) const {
    return device.is_cpu() ? fmt::format_to(context.out(), "cpu")
                           : fmt::format_to(context.out(), "cuda:{}", device.index);
  }
};
