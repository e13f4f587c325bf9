#pragma once
// What a trainer holds: several optimizers, each with a group of parameters.
//
//   optimizers.push_back(std::make_unique<Muon>(matrices, MuonOptions{…}));
//   optimizers.push_back(std::make_unique<AdamW>(others, AdamWOptions{…}));
//   optimizers.push_back(std::make_unique<RowAdam>(tables, RowAdamOptions{…}));
//   …
//   const double scale = clip_factor(sum over ranks of gradient_square_sum(…), clip_norm);
//   for (auto& optimizer : optimizers) optimizer->step(schedule.learning_rate(step), scale);

#include <cstdint>
#include <string>
#include <vector>

#include "framework/nn/parameter.h"

namespace fulcrum {

// One part of an optimizer's state, for checkpoints. Its leading dimension is that of the
// parameter's master: row 0 is row shard.first + master_rows.first of the whole.
struct StateTensor {
  std::string name;  // "optimizer.adamw.first_moment/blocks.3.attention.query.weight"
  Tensor value;      // shares the optimizer's memory: copy into it to restore
  const Parameter* parameter;
};

// Works on masters, where they lie, and keeps rounded values equal to them. Data ranks that divide
// the masters do so before the optimizers are built.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // One update from the gradients in the parameters' slots, which are complete (summed over ranks
  // and micro-batches) and are first multiplied by gradient_scale. A parameter whose slot is
  // `fresh` or empty got no gradient: it counts as zero.
  void step(double lr, double gradient_scale = 1.0) {
    ++steps_;
    update(lr, gradient_scale);
  }

  // Steps done; belongs to a checkpoint like state(), for bias correction depends on it.
  std::int64_t steps() const { return steps_; }
  void set_steps(std::int64_t steps) { steps_ = steps; }

  virtual std::vector<StateTensor> state() const = 0;
  const std::vector<Parameter*>& parameters() const { return parameters_; }

 protected:
  explicit Optimizer(std::vector<Parameter*> parameters) : parameters_(std::move(parameters)) {}

  virtual void update(double lr, double gradient_scale) = 0;

  // Parameter::gradient; throws when there is a sparse one.
  static Tensor gradient_of(const Parameter& parameter);
  // Zeros like the master of every parameter.
  std::vector<Tensor> zero_state() const;
  bool on_cuda() const {
    return !parameters_.empty() && parameters_.front()->value.device().is_cuda();
  }
  // Names "optimizer.<optimizer>.<part>/<parameter>" for one tensor a parameter.
  void append_state(std::vector<StateTensor>& list, const std::string& optimizer,
                    const std::string& part, const std::vector<Tensor>& tensors) const;

 private:
  std::vector<Parameter*> parameters_;
  std::int64_t steps_ = 0;
};

}  // namespace fulcrum
