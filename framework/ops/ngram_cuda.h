#pragma once
// What ngram.cu launches. Internal to ops/ngram.h.

#include "framework/ops/ngram.h"

namespace fulcrum::ops::cuda {

Tensor ngram_rows(const Tensor& ids, const Tensor& document_start, const NgramHash& hash,
                  std::int64_t pad_id, const Tensor& id_map);

}  // namespace fulcrum::ops::cuda
