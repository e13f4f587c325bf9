#include "framework/ops/scalars.h"

#include "framework/ops/dispatch.h"
#include "framework/ops/scalars_cuda.h"

namespace fulcrum::ops {

Tensor pack_scalars(const std::vector<Tensor>& scalars) {
  const Device device = scalars.empty() ? Device{} : scalars.front().device();
  const Tensor packed =
      Tensor::empty({static_cast<std::int64_t>(scalars.size())}, DType::f64, device);
  for (const Tensor& x : scalars) {
    FULCRUM_REQUIRE(x.numel() == 1 && x.device() == device,
                    "pack_scalars: tensors of one element on one device; got {} on {} beside {}",
                    x.shape(), x.device(), device);
  }
  dispatch(
      "pack_scalars", packed,
      [&]<class T>() {
        for (std::size_t i = 0; i < scalars.size(); ++i) {
          packed.data<double>()[i] = scalars[i].item();
        }
      },
      [&] { cuda::pack_scalars(scalars, packed); });
  return packed;
}

}  // namespace fulcrum::ops
