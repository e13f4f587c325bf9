#include "framework/optim/adamw.h"

#include <algorithm>
#include <cmath>

#include "framework/optim/adam_kernel.h"
#include "framework/optim/adamw_cuda.h"

namespace fulcrum {

namespace {
constexpr std::int64_t kBlock = 16384;  // elements a thread takes at once
}

AdamW::AdamW(std::vector<Parameter*> parameters, const AdamWOptions& options)
    : Optimizer(std::move(parameters)),
      options_(options),
      first_(zero_moments()),
      second_(zero_moments()) {}

std::vector<Tensor> AdamW::zero_moments() const {
  FULCRUM_REQUIRE(options_.moments == DType::f32 || options_.moments == DType::bf16,
                  "adamw: moments must be f32 or bf16; got {}", options_.moments);
  if (options_.moments == DType::f32) return zero_state();
  std::vector<Tensor> tensors;
  for (const Parameter* p : parameters()) {
    const DType dtype = has_small_moments(p->kind) ? DType::bf16 : p->master.dtype();
    tensors.push_back(Tensor::zeros(p->master.shape(), dtype, p->master.device()));
  }
  return tensors;
}

RoundingDraws AdamW::draws_of(const Parameter& p) const {
  const std::int64_t rows = p.global_shape[0];
  const std::int64_t row = rows == 0 ? 0 : p.global_shape.numel() / rows;
  return rounding_draws(options_.seed, p.name, steps(),
                        (p.shard.first + p.master_rows.first) * row);
}

std::vector<StateTensor> AdamW::state() const {
  std::vector<StateTensor> list;
  append_state(list, "adamw", "first_moment", first_);
  append_state(list, "adamw", "second_moment", second_);
  return list;
}

void AdamW::update(double lr, double gradient_scale) {
  const auto t = static_cast<double>(steps());
  const double correction1 = 1.0 - std::pow(options_.beta1, t);
  const double correction2 = 1.0 - std::pow(options_.beta2, t);
  const auto decay_of = [&](const Parameter& p) {
    return p.kind == ParameterKind::vector ? 0.0 : options_.weight_decay;
  };
  if constexpr (kBuiltWithCuda) {
    if (on_cuda()) {
      std::vector<cuda::AdamTensors> list;
      for (std::size_t k = 0; k < parameters().size(); ++k) {
        const Parameter& p = *parameters()[k];
        list.push_back(
            {p, gradient_of(p), first_[k], second_[k], draws_of(p), 1.0 - lr * decay_of(p)});
      }
      return cuda::adam(list, {options_.beta1, options_.beta2, options_.eps, lr, 0.0, correction1,
                               correction2, gradient_scale});
    }
  }
  for (std::size_t k = 0; k < parameters().size(); ++k) {
    const Parameter& p = *parameters()[k];
    const Tensor gradient = gradient_of(p);
    dispatch_floating("adamw", p.master.dtype(), [&]<class T>() {
      const AdamConstants<T> constants(options_.beta1, options_.beta2, options_.eps, lr,
                                       decay_of(p), correction1, correction2, gradient_scale);
      const T* g = gradient.defined() ? gradient.data<T>() : nullptr;
      T* w = p.master.data<T>();
      const bool small = first_[k].dtype() == DType::bf16;
      const RoundingDraws draws = draws_of(p);
      const std::int64_t n = p.master.numel();
      const std::int64_t blocks = (n + kBlock - 1) / kBlock;
#pragma omp parallel for schedule(static) if (blocks > 1)
      for (std::int64_t b = 0; b < blocks; ++b) {
        const std::int64_t i = b * kBlock;
        const std::int64_t count = std::min(kBlock, n - i);
        const T* gradients = g == nullptr ? g : g + i;
        if (small) {
          adam_elements(constants, gradients, i, count, w + i, first_[k].data<BFloat16>() + i,
                        second_[k].data<BFloat16>() + i, draws);
        } else {
          adam_elements(constants, gradients, count, w + i, first_[k].data<T>() + i,
                        second_[k].data<T>() + i);
        }
      }
    });
    p.round();
  }
}

}  // namespace fulcrum
