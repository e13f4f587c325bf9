#include "apps/bench/inputs.h"

#include "framework/core/philox.h"

namespace fulcrum::apps {

Tensor random_values(const Shape& shape, DType dtype, Device device, std::uint64_t seed,
                     double scale) {
  const Tensor host = Tensor::empty(shape, DType::f32);
  fill_normal(host, scale, seed, stream_of("bench"));
  return host.to(device).to(dtype);
}

Tensor random_ids(const Shape& shape, std::int64_t bound, Device device, std::uint64_t seed) {
  const Tensor host = Tensor::empty(shape, DType::i32);
  const Random random(seed, stream_of("bench ids"));
  std::int32_t* id = host.data<std::int32_t>();
  for (std::int64_t i = 0; i < host.numel(); ++i) {
    id[i] = static_cast<std::int32_t>(
        random.below(static_cast<std::uint64_t>(i), static_cast<std::uint64_t>(bound)));
  }
  return host.to(device);
}

}  // namespace fulcrum::apps
