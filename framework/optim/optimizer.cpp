#include "framework/optim/optimizer.h"

#include "framework/autograd/grad_slot.h"

namespace fulcrum {

Tensor Optimizer::gradient_of(const Parameter& parameter) {
  FULCRUM_REQUIRE(parameter.slot().sparse.rows.empty(),
                  "optimizer: {} has a sparse gradient, which only RowAdam takes", parameter.name);
  return parameter.gradient();
}

std::vector<Tensor> Optimizer::zero_state() const {
  std::vector<Tensor> tensors;
  for (const Parameter* p : parameters_) tensors.push_back(Tensor::zeros_like(p->master));
  return tensors;
}

void Optimizer::append_state(std::vector<StateTensor>& list, const std::string& optimizer,
                             const std::string& part, const std::vector<Tensor>& tensors) const {
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    list.push_back({fmt::format("optimizer.{}.{}/{}", optimizer, part, parameters_[i]->name),
                    tensors[i], parameters_[i]});
  }
}

}  // namespace fulcrum
