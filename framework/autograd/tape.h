#pragma once
// The tape: reverse-mode differentiation by replaying recorded operators backwards.
//
//   Tape tape;
//   Tensor loss;
//   { Tape::Scope recording(tape); loss = model(batch); }
//   tape.backward(loss);                       // gradients are in the leaves' slots
//
// Operators record themselves when a tape is active and an input requires a gradient:
//
//   Tensor y = kernel(x);
//   if (Tape* tape = Tape::recording({x}))
//     tape->record("scale", {x}, {&y}, [=](Backward& b) { b.accumulate(0,
//     kernel_backward(b.grad(0))); });
//
// A closure keeps alive what it captured until it has run; afterwards the memory returns to the
// pool. The tape belongs to one thread. Order of execution is the exact reverse of recording, so
// gradients are bit-identical from run to run.

#include <functional>
#include <initializer_list>
#include <vector>

#include "framework/autograd/grad_slot.h"
#include "framework/core/tensor.h"

namespace fulcrum {

class Tape;

// What a backward closure sees.
class Backward {
 public:
  // Gradient of output i with the output's shape; undefined when nothing used that output.
  Tensor grad(std::size_t output) const;
  // Whether input i wants a gradient.
  bool needs(std::size_t input) const;
  // Adds to the gradient of input i; ignored when it wants none.
  void accumulate(std::size_t input, const Tensor& gradient);
  // Buffer for a kernel that writes or adds by itself (matmul with beta). Call only when
  // needs(input).
  GradSlot::Target target(std::size_t input);
  GradSlot& slot(std::size_t input);
  // Work that only weight gradients need: runs now, or later when the tape defers weight gradients
  // (zero-bubble pipelines). The closure must own what it uses, and must not use this Backward.
  void weight_gradient(std::size_t input, std::function<void(GradSlot&)> work);

 private:
  friend class Tape;
  struct Entry;
  Backward(Tape& tape, Entry& entry) : tape_(tape), entry_(entry) {}
  Tape& tape_;
  Entry& entry_;
};

using BackwardFn = std::function<void(Backward&)>;

class Tape {
 public:
  Tape();
  ~Tape();
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  // Makes a tape the active one of this thread.
  class Scope {
   public:
    explicit Scope(Tape& tape) : Scope(&tape) {}
    ~Scope();
    Scope(const Scope&) = delete;

   protected:
    explicit Scope(Tape* tape);

   private:
    Tape* previous_;
  };
  // No recording inside.
  class Pause : public Scope {
   public:
    Pause() : Scope(nullptr) {}
  };

  // The tape of this thread that records; null when none does.
  static Tape* active();
  // The active tape if one of the inputs requires a gradient, else null. Undefined inputs are
  // allowed.
  static Tape* recording(std::initializer_list<Tensor> inputs);
  static Tape* recording(const std::vector<Tensor>& inputs);

  // Gives every output a slot and remembers the closure. Outputs share one entry: the closure runs
  // when any of them got a gradient.
  void record(const char* op, std::vector<Tensor> inputs, std::vector<Tensor*> outputs,
              BackwardFn backward);

  // Runs work when backward comes to this point, without recording.
  void on_backward(std::function<void()> work);

  enum class WeightGradients { now, deferred };
  // Runs everything backwards from loss, whose gradient is seed (one when undefined; loss must then
  // be a scalar). Afterwards the tape is empty.
  void backward(const Tensor& loss, const Tensor& seed = {},
                WeightGradients mode = WeightGradients::now);
  // From several outputs at once (a pipeline stage, a recomputed segment).
  void backward(const std::vector<Tensor>& outputs, const std::vector<Tensor>& seeds,
                WeightGradients mode = WeightGradients::now);
  // Runs the weight gradients that backward deferred, in order.
  void run_deferred();

  std::size_t size() const;

 private:
  friend class Backward;
  std::vector<Backward::Entry> entries_;
  std::vector<std::function<void()>> deferred_;
  WeightGradients mode_ = WeightGradients::now;
};

}  // namespace fulcrum
