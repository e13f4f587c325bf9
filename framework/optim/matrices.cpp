#include "framework/optim/matrices.h"

namespace fulcrum {

std::vector<MatrixOf> matrices_of(const Parameter& p) {
  const std::int64_t rows = p.master.dim(-2);
  const std::int64_t cols = p.master.dim(-1);
  const std::vector<std::int64_t> parts = p.parts.empty() ? std::vector{rows} : p.parts;
  std::vector<MatrixOf> list;
  for (std::int64_t offset = 0; offset < p.master.numel();) {
    for (const std::int64_t part : parts) {
      if (part > 0) list.push_back({offset, part, cols});
      offset += part * cols;
    }
  }
  return list;
}

}  // namespace fulcrum
