#include "framework/autograd/tape.h"

#include <algorithm>

#include "framework/core/region.h"

namespace fulcrum {
namespace {
thread_local Tape* active_tape = nullptr;

void finish_use(GradSlot& slot) {
  if (--slot.pending == 0 && slot.on_complete) slot.on_complete();
}
}  // namespace

struct Backward::Entry {
  const char* op;
  Region region;
  std::vector<std::shared_ptr<GradSlot>> inputs;  // null where no gradient is wanted
  std::vector<std::shared_ptr<GradSlot>> outputs;
  std::vector<Shape> input_shapes;
  std::vector<DType> input_dtypes;
  std::vector<Device> input_devices;
  std::vector<Shape> output_shapes;
  BackwardFn backward;
  std::vector<std::size_t> deferred_inputs;
};

Tensor Backward::grad(std::size_t output) const {
  const Tensor& g = entry_.outputs.at(output)->grad;
  return g.defined() ? g.reshape(entry_.output_shapes[output]) : g;
}

bool Backward::needs(std::size_t input) const { return entry_.inputs.at(input) != nullptr; }

GradSlot& Backward::slot(std::size_t input) {
  FULCRUM_CHECK(needs(input), "{}: input {} wants no gradient", entry_.op, input);
  return *entry_.inputs[input];
}

void Backward::accumulate(std::size_t input, const Tensor& gradient) {
  if (needs(input)) entry_.inputs[input]->accumulate(gradient);
}

GradSlot::Target Backward::target(std::size_t input) {
  return slot(input).target(entry_.input_shapes[input], entry_.input_dtypes[input],
                            entry_.input_devices[input]);
}

void Backward::weight_gradient(std::size_t input, std::function<void(GradSlot&)> work) {
  if (!needs(input)) return;
  if (tape_.mode_ == Tape::WeightGradients::now) {
    work(*entry_.inputs[input]);
    return;
  }
  entry_.deferred_inputs.push_back(input);
  tape_.deferred_.push_back([slot = entry_.inputs[input], work = std::move(work)] {
    work(*slot);
    if (slot->leaf) finish_use(*slot);
  });
}

Tape::Tape() = default;
Tape::~Tape() = default;
std::size_t Tape::size() const { return entries_.size(); }

Tape::Scope::Scope(Tape* tape) : previous_(active_tape) { active_tape = tape; }
Tape::Scope::~Scope() { active_tape = previous_; }

Tape* Tape::active() { return active_tape; }

Tape* Tape::recording(std::initializer_list<Tensor> inputs) {
  if (active_tape == nullptr) return nullptr;
  for (const Tensor& t : inputs) {
    if (t.requires_grad()) return active_tape;
  }
  return nullptr;
}

Tape* Tape::recording(const std::vector<Tensor>& inputs) {
  if (active_tape == nullptr) return nullptr;
  for (const Tensor& t : inputs) {
    if (t.requires_grad()) return active_tape;
  }
  return nullptr;
}

void Tape::record(const char* op, std::vector<Tensor> inputs, std::vector<Tensor*> outputs,
                  BackwardFn backward) {
  Backward::Entry entry;
  entry.op = op;
  entry.region = current_region();
  for (const Tensor& input : inputs) {
    entry.inputs.push_back(input.slot());
    entry.input_shapes.push_back(input.shape());
    entry.input_dtypes.push_back(input.dtype());
    entry.input_devices.push_back(input.device());
    if (input.slot() != nullptr && input.slot()->leaf) ++input.slot()->pending;
  }
  for (Tensor* output : outputs) {
    auto slot = std::make_shared<GradSlot>();
    output->set_slot(slot);
    entry.outputs.push_back(std::move(slot));
    entry.output_shapes.push_back(output->shape());
  }
  entry.backward = std::move(backward);
  entries_.push_back(std::move(entry));
}

void Tape::on_backward(std::function<void()> work) {
  Backward::Entry entry;
  entry.op = "on_backward";
  entry.region = current_region();
  entry.backward = [work = std::move(work)](Backward&) { work(); };
  entries_.push_back(std::move(entry));
}

void Tape::backward(const Tensor& loss, const Tensor& seed, WeightGradients mode) {
  FULCRUM_REQUIRE(seed.defined() || loss.numel() == 1,
                  "backward: a loss without a seed must be a scalar; got {}", loss.shape());
  backward(std::vector<Tensor>{loss},
           std::vector<Tensor>{seed.defined()
                                   ? seed
                                   : Tensor::full(loss.shape(), 1.0, loss.dtype(), loss.device())},
           mode);
}

void Tape::backward(const std::vector<Tensor>& outputs, const std::vector<Tensor>& seeds,
                    WeightGradients mode) {
  FULCRUM_REQUIRE(outputs.size() == seeds.size(), "backward: {} outputs and {} seeds",
                  outputs.size(), seeds.size());
  Pause no_recording;
  mode_ = mode;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].requires_grad() && seeds[i].defined()) outputs[i].slot()->accumulate(seeds[i]);
  }
  InRegion region(current_region());
  while (!entries_.empty()) {
    Backward::Entry entry = std::move(entries_.back());
    entries_.pop_back();
    const bool used = entry.outputs.empty() ||
                      std::any_of(entry.outputs.begin(), entry.outputs.end(),
                                  [](const auto& slot) { return slot->grad.defined(); });
    if (used) {
      Backward context(*this, entry);
      region.move_to(entry.region);
      entry.backward(context);
    }
    for (std::size_t i = 0; i < entry.inputs.size(); ++i) {
      const auto& slot = entry.inputs[i];
      if (slot == nullptr || !slot->leaf) continue;
      const auto& later = entry.deferred_inputs;
      if (std::find(later.begin(), later.end(), i) == later.end()) finish_use(*slot);
    }
    for (const auto& slot : entry.outputs) slot->grad = {};
  }
}

void Tape::run_deferred() {
  Pause no_recording;
  for (auto& work : deferred_) work();
  deferred_.clear();
}

}  // namespace fulcrum
