#include "framework/optim/stochastic_rounding.h"

#include "framework/core/philox.h"

namespace fulcrum {

RoundingDraws rounding_draws(std::uint64_t seed, std::string_view tensor, std::int64_t step,
                             std::int64_t origin) {
  // Apart from the initial values, which the same seed and name give.
  constexpr std::uint64_t kPurpose = 0x6d6f6d656e747321ull;
  const std::uint64_t key = seed ^ kPurpose;
  const std::uint64_t stream = stream_of(tensor);
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  const auto t = static_cast<std::uint64_t>(step);
  const auto words = philox({low(t), high(t), low(stream), high(stream)}, {low(key), high(key)});
  return {{words[0], words[1]}, static_cast<std::uint64_t>(origin)};
}

}  // namespace fulcrum
