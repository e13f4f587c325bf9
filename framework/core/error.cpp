#include "framework/core/error.h"

namespace fulcrum {
namespace {
int error_rank = -1;
}

void set_error_rank(int rank) { error_rank = rank; }

void throw_internal(const char* condition, const char* file, int line, const std::string& message) {
  const std::string rank = error_rank < 0 ? "" : fmt::format("rank {}: ", error_rank);
  throw InternalError(
      fmt::format("{}{}:{}: {} does not hold: {}", rank, file, line, condition, message));
}

}  // namespace fulcrum
