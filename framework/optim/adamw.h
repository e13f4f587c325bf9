#pragma once
// AdamW (Loshchilov and Hutter, arXiv 1711.05101): Adam with decoupled weight decay.
//
//   m ← β1·m + (1 − β1)·g          v ← β2·v + (1 − β2)·g²
//   w ← w − lr·decay·w − lr · m̂ / (√v̂ + eps)      m̂ = m / (1 − β1ᵗ), v̂ = v / (1 − β2ᵗ)
//
// Parameters of kind vector (norm scales, gates, convolutions) do not decay.
//
// Moments may be kept in bf16 (AdamWOptions::moments). The update is that of the new moments in
// f32; what is kept of them is rounded stochastically (optim/stochastic_rounding.h), by up to
// 1 / 128, by 1 / 440 on average. Over the 1 / (1 − β) steps that a moment remembers this adds up
// to a noise of 0.5 % of m at β1 = 0.9, and of v of 0.7 % at β2 = 0.95, 5 % at 0.999; none of it is
// bias.

#include "framework/optim/optimizer.h"
#include "framework/optim/stochastic_rounding.h"

namespace fulcrum {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  // f32: moments are what masters are. bf16: those of matrices, experts, embedding and head; of
  // vectors and routers, which are small, they stay.
  DType moments = DType::f32;
  std::uint64_t seed = 0;  // of rounding
};

// Whether `moments` of AdamWOptions says anything about parameters of this kind.
constexpr bool has_small_moments(ParameterKind kind) {
  return kind == ParameterKind::matrix || kind == ParameterKind::expert ||
         kind == ParameterKind::embedding || kind == ParameterKind::head;
}

class AdamW : public Optimizer {
 public:
  // Throws ArgumentError for moments other than f32 and bf16.
  AdamW(std::vector<Parameter*> parameters, const AdamWOptions& options);

  // optimizer.adamw.first_moment and .second_moment
  std::vector<StateTensor> state() const override;

 protected:
  void update(double lr, double gradient_scale) override;

 private:
  std::vector<Tensor> zero_moments() const;
  // What this step draws for the rows that this rank updates.
  RoundingDraws draws_of(const Parameter& parameter) const;

  AdamWOptions options_;
  std::vector<Tensor> first_;
  std::vector<Tensor> second_;
};

}  // namespace fulcrum
