#include "framework/ops/document.h"

#include <algorithm>

namespace fulcrum::ops {

const std::int32_t* checked_document_start(const char* op, const Tensor& document_start,
                                           std::int64_t batch, std::int64_t seq) {
  if (!document_start.defined()) return nullptr;
  FULCRUM_REQUIRE(
      document_start.shape() == Shape({batch, seq}) && document_start.dtype() == DType::i32,
      "{}: document_start must be i32 [{}, {}]; got {} {}", op, batch, seq, document_start.dtype(),
      document_start.shape());
  if (document_start.device().is_cuda()) {
    return static_cast<const std::int32_t*>(document_start.raw());
  }
  const std::int32_t* start = document_start.data<std::int32_t>();
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int32_t* row = start + b * seq;
    std::int64_t bad = seq;
#pragma omp simd reduction(min : bad)
    for (std::int64_t t = 0; t < seq; ++t) bad = std::min(bad, row[t] < 0 || row[t] > t ? t : seq);
    FULCRUM_REQUIRE(bad == seq,
                    "{}: a document starts in [0, position]; got {} at position {} of sequence {}",
                    op, row[bad], bad, b);
  }
  return start;
}

}  // namespace fulcrum::ops
