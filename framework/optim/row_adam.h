#pragma once
// Adam for tables of which a step touches few rows (arXiv 2601.07372 section 4.1: Adam, learning
// rate ×5, no weight decay).
//
// Only rows with a gradient in this step change, and only their moments: a row's t in the bias
// correction counts the steps that touched it. Time and memory traffic are proportional to the
// touched rows. For a row touched in every step the update is that of AdamW. On CUDA nothing waits
// for the device, which alone knows how many rows there are.

#include "framework/ops/table.h"
#include "framework/optim/optimizer.h"

namespace fulcrum {

struct RowAdamOptions {
  double lr_multiplier = 5.0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.0;  // decoupled, of touched rows
};

// Takes the sparse gradients of the slots (ops::gather_table, ops::read_table), merges them in
// place, and leaves them there.
class RowAdam : public Optimizer {
 public:
  RowAdam(std::vector<Parameter*> parameters, const RowAdamOptions& options);

  // optimizer.row_adam.moments [rows, 2, width], a row's first and then its second, and .row_steps
  // i32 [rows]
  std::vector<StateTensor> state() const override;

 protected:
  void update(double lr, double gradient_scale) override;

 private:
  void check(const Parameter& parameter, const ops::MergedRows& gradient) const;
  template <class T>
  void update_table(std::size_t k, const ops::MergedRows& gradient, double lr,
                    double gradient_scale);

  RowAdamOptions options_;
  // Both of a row together: rows lie far apart, and memory is slow to find.
  std::vector<Tensor> moments_;
  std::vector<Tensor> row_steps_;
  std::vector<double> powers1_, powers2_;  // β1ᵗ and β2ᵗ for t up to steps()
};

}  // namespace fulcrum
