#include "framework/ops/sequence_share.h"

#include <algorithm>

#include "framework/ops/sequence_share_cuda.h"
#include "framework/ops/sequence_share_kernel.h"

namespace fulcrum::ops {

Tensor tokens_of_share(const Tensor& ids, double share) {
  FULCRUM_REQUIRE(ids.rank() == 2 && ids.dtype() == DType::i32 && share >= 0.0 && share <= 1.0,
                  "tokens_of_share: ids must be i32 [sequences, length], share in [0, 1]; got {} "
                  "{}, share {}",
                  ids.dtype(), ids.shape(), share);
  const std::int64_t length = ids.dim(1);
  const Tensor chosen = Tensor::empty({ids.numel()}, DType::u8, ids.device());
  const std::uint64_t threshold = draw_threshold(share);
  if constexpr (kBuiltWithCuda) {
    if (ids.device().is_cuda()) {
      cuda::tokens_of_share(ids, threshold, chosen);
      return chosen;
    }
  }
  const std::int32_t* id = ids.data<std::int32_t>();
  for (std::int64_t r = 0; r < ids.dim(0); ++r) {
    std::uint64_t content = 0;
    for (std::int64_t i = 0; i < length; ++i) content += content_of(i, id[r * length + i]);
    std::fill_n(chosen.data<std::uint8_t>() + r * length, length,
                is_drawn(content, threshold) ? std::uint8_t{1} : std::uint8_t{0});
  }
  return chosen;
}

}  // namespace fulcrum::ops
