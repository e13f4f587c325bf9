#pragma once
// AdamW (Loshchilov and Hutter, arXiv 1711.05101): Adam with decoupled weight decay.
//
//   m ← β1·m + (1 − β1)·g          v ← β2·v + (1 − β2)·g²
//   w ← w − lr·decay·w − lr · m̂ / (√v̂ + eps)      m̂ = m / (1 − β1ᵗ), v̂ = v / (1 − β2ᵗ)
//
// Parameters of kind vector (norm scales, gates, convolutions) do not decay.

#include "framework/optim/optimizer.h"

namespace fulcrum {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
};

class AdamW : public Optimizer {
 public:
  AdamW(std::vector<Parameter*> parameters, const AdamWOptions& options);

  // optimizer.adamw.first_moment and .second_moment
  std::vector<StateTensor> state() const override;

 protected:
  void update(double lr, double gradient_scale) override;

 private:
  AdamWOptions options_;
  std::vector<Tensor> first_;
  std::vector<Tensor> second_;
};

}  // namespace fulcrum
