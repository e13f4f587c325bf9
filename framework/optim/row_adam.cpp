#include "framework/optim/row_adam.h"

#include <algorithm>
#include <cmath>

#include "framework/autograd/grad_slot.h"
#include "framework/ops/segments.h"
#include "framework/optim/adam_kernel.h"
#include "framework/optim/row_adam_cuda.h"

namespace fulcrum {
namespace {
constexpr std::int64_t kParallel = 16384;  // elements from which threads pay
constexpr std::int64_t kAhead = 12;        // rows fetched ahead of a random access
}  // namespace

RowAdam::RowAdam(std::vector<Parameter*> tables, const RowAdamOptions& options)
    : Optimizer(std::move(tables)), options_(options) {
  for (const Parameter* p : parameters()) {
    FULCRUM_REQUIRE(p->value.rank() == 2, "row adam: {} must be [rows, width]; got {}", p->name,
                    p->value.shape());
    const std::int64_t rows = p->value.dim(0);
    const Device device = p->value.device();
    moments_.push_back(Tensor::zeros({rows, 2, p->value.dim(1)}, p->value.dtype(), device));
    row_steps_.push_back(Tensor::zeros({rows}, DType::i32, device));
  }
}

std::vector<StateTensor> RowAdam::state() const {
  std::vector<StateTensor> list;
  append_state(list, "row_adam", "moments", moments_);
  append_state(list, "row_adam", "row_steps", row_steps_);
  return list;
}

// The host cannot read what lies on a device.
void RowAdam::check(const Parameter& p, const ops::MergedRows& gradient) const {
  const Tensor& values = gradient.values;
  FULCRUM_REQUIRE(values.dim(1) == p.value.dim(1) && values.dtype() == p.value.dtype(),
                  "row adam: the gradient of {} {} {} has {} {}", p.name, p.value.dtype(),
                  p.value.shape(), values.dtype(), values.shape());
  if (!values.device().is_cpu()) return;
  const ops::KeyRange range =
      ops::range_of(gradient.rows.data<std::int64_t>(), gradient.rows.numel());
  FULCRUM_REQUIRE(range.least >= 0 && range.most < p.value.dim(0),
                  "row adam: the gradient of {} {} is for rows {} to {}", p.name, p.value.shape(),
                  range.least, range.most);
}

template <class T>
void RowAdam::update_table(std::size_t k, const ops::MergedRows& gradient, double lr,
                           double gradient_scale) {
  const Parameter& p = *parameters()[k];
  const std::int64_t width = p.value.dim(1);
  const std::int64_t n = gradient.rows.numel();
  const std::int64_t* row = gradient.rows.data<std::int64_t>();
  std::int32_t* row_steps = row_steps_[k].data<std::int32_t>();
  const T* g = gradient.values.data<T>();
  const std::int64_t last = steps();
  T* w = p.value.data<T>();
  T* moments = moments_[k].data<T>();

#pragma omp parallel for schedule(static) if (n * width > kParallel)
  for (std::int64_t i = 0; i < n; ++i) {
    if (i + kAhead < n) {
      const std::int64_t ahead = row[i + kAhead] * width;
      __builtin_prefetch(w + ahead, 1);
      __builtin_prefetch(moments + 2 * ahead, 1);
      __builtin_prefetch(moments + 2 * ahead + width, 1);
      __builtin_prefetch(row_steps + row[i + kAhead], 1);
    }
    const std::int64_t t = std::min<std::int64_t>(++row_steps[row[i]], last);
    const AdamConstants<T> constants(options_.beta1, options_.beta2, options_.eps, lr,
                                     options_.weight_decay, 1.0 - powers1_[t], 1.0 - powers2_[t],
                                     gradient_scale);
    const std::int64_t at = row[i] * width;
    T* first = moments + 2 * at;
    adam_elements(constants, g + i * width, width, w + at, first, first + width);
  }
}

void RowAdam::update(double lr, double gradient_scale) {
  for (auto t = static_cast<std::int64_t>(powers1_.size()); t <= steps(); ++t) {
    powers1_.push_back(std::pow(options_.beta1, static_cast<double>(t)));
    powers2_.push_back(std::pow(options_.beta2, static_cast<double>(t)));
  }
  const double table_lr = options_.lr_multiplier * lr;
  for (std::size_t k = 0; k < parameters().size(); ++k) {
    const Parameter& p = *parameters()[k];
    GradSlot& slot = p.slot();
    FULCRUM_REQUIRE(!slot.grad.defined() || slot.fresh, "row adam: {} has a dense gradient",
                    p.name);
    ops::merge_in_place(slot.sparse, p.value.dim(0));
    if (slot.sparse.rows.empty() || slot.sparse.rows[0].numel() == 0) continue;
    const ops::MergedRows gradient{slot.sparse.rows[0], slot.sparse.values[0], slot.sparse.count};
    check(p, gradient);
    if constexpr (kBuiltWithCuda) {
      if (on_cuda()) {
        cuda::row_adam(gradient, {p.value, moments_[k], row_steps_[k]},
                       {options_.beta1, options_.beta2, options_.eps, table_lr,
                        options_.weight_decay, 1.0, 1.0, gradient_scale},
                       options_.beta1, options_.beta2);
        continue;
      }
    }
    dispatch_floating("row_adam", p.value.dtype(),
                      [&]<class T>() { update_table<T>(k, gradient, table_lr, gradient_scale); });
  }
}

}  // namespace fulcrum
