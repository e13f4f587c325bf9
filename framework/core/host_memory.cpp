#include "framework/core/host_memory.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace fulcrum {

void copy_memory(void* target, const void* source, std::size_t bytes) {
  constexpr std::size_t kPiece = std::size_t{1} << 20;
  const auto pieces = static_cast<std::int64_t>((bytes + kPiece - 1) / kPiece);
#pragma omp parallel for schedule(static) if (pieces > 4)
  for (std::int64_t i = 0; i < pieces; ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * kPiece;
    std::memcpy(static_cast<char*>(target) + at, static_cast<const char*>(source) + at,
                std::min(kPiece, bytes - at));
  }
}

}  // namespace fulcrum
