#pragma once
// Where a tensor lives.

#include <fmt/format.h>

#include <cstdint>
#include <string>

namespace fulcrum {

#ifdef FULCRUM_CUDA
inline constexpr bool kBuiltWithCuda = true;
#else
inline constexpr bool kBuiltWithCuda = false;
#endif

struct Device {
  enum class Kind : std::uint8_t { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;

  bool is_cpu() const { return kind == Kind::cpu; }
  bool is_cuda() const { return kind == Kind::cuda; }
  bool operator==(const Device&) const = default;
};

}  // namespace fulcrum

template <>
struct fmt::formatter<fulcrum::Device> : fmt::formatter<std::string> {
  auto format(fulcrum::Device device, fmt::format_context& context) const {
    return fmt::formatter<std::string>::format(
        device.is_cpu() ? "cpu" : "cuda:" + std::to_string(device.index), context);
  }
};
