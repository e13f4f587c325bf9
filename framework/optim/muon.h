#pragma once
// Muon (Jordan et al. 2024): momentum whose matrix is made orthogonal before it is applied.
//
//   m ← μ·m + (1 − μ)·g                     u = μ·m + (1 − μ)·g  (Nesterov), or m
//   w ← w − lr·decay·w − lr · update_rms · √max(out, in) · orthogonal(u)
//
// An orthogonal [out, in] matrix has elements of RMS 1/√max(out, in), so an update has RMS
// update_rms whatever its shape, and the learning rates and decay of AdamW carry over; DeepSeek-V4
// uses 0.18 with momentum 0.95. A u of lower rank gives a smaller update. The scale of the gradient
// does not matter.

#include "framework/optim/optimizer.h"

namespace fulcrum {

struct MuonOptions {
  double momentum = 0.95;
  bool nesterov = true;
  std::int64_t iterations = 5;  // Newton–Schulz
  double update_rms = 0.18;
  double weight_decay = 0.1;
};

// For parameters [out, in], and for experts [E, out, in], of which each leading index is a matrix
// of its own. Parts of a parameter (Parameter::parts) are matrices of their own, too. Other ranks,
// and matrices of which this rank's master holds only some rows, throw ArgumentError. On CUDA
// Newton–Schulz runs in the dtype of the parameter's value.
class Muon : public Optimizer {
 public:
  Muon(std::vector<Parameter*> parameters, const MuonOptions& options);

  // optimizer.muon.momentum
  std::vector<StateTensor> state() const override;

 protected:
  void update(double lr, double gradient_scale) override;

 private:
  MuonOptions options_;
  std::vector<Tensor> momentum_;
};

}  // namespace fulcrum
