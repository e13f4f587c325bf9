#include "framework/autograd/recompute.h"

#include "framework/autograd/tape.h"

namespace fulcrum {

std::vector<Tensor> recompute(
    std::function<std::vector<Tensor>(const std::vector<Tensor>&)> segment,
    const std::vector<Tensor>& inputs) {
  Tape* tape = Tape::active();
  if (tape == nullptr) return segment(inputs);
  std::vector<Tensor> outputs;
  {
    Tape::Pause no_recording;
    outputs = segment(inputs);
  }
  std::vector<Tensor*> pointers;
  for (Tensor& output : outputs) pointers.push_back(&output);
  tape->record("recompute", inputs, pointers, [segment, inputs, n = outputs.size()](Backward& b) {
    std::vector<Tensor> copies;
    for (const Tensor& input : inputs) {
      copies.push_back(input.detach());
      if (input.requires_grad()) copies.back().set_slot(std::make_shared<GradSlot>());
    }
    Tape inner;
    std::vector<Tensor> again;
    {
      Tape::Scope recording(inner);
      again = segment(copies);
    }
    std::vector<Tensor> seeds;
    for (std::size_t i = 0; i < n; ++i) seeds.push_back(b.grad(i));
    inner.backward(again, seeds);
    for (std::size_t i = 0; i < copies.size(); ++i) {
      if (copies[i].requires_grad() && copies[i].grad().defined())
        b.accumulate(i, copies[i].grad());
    }
  });
  return outputs;
}

void drop_until_backward(const Tensor& value, std::function<Tensor()> again) {
  Tape* tape = Tape::active();
  if (tape == nullptr) return;
  value.exchange_memory(Tensor::empty({0}, value.dtype(), value.device()));
  tape->on_backward([value = value.detach(), again = std::move(again)] {
    const Tensor anew = again();
    FULCRUM_CHECK(anew.shape() == value.shape() && anew.dtype() == value.dtype(),
                  "{} {} was made again as {} {}", value.dtype(), value.shape(), anew.dtype(),
                  anew.shape());
    value.exchange_memory(anew);
  });
}

}  // namespace fulcrum
