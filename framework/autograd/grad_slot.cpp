#include "framework/autograd/grad_slot.h"

#include "framework/core/cuda_elementwise.h"

namespace fulcrum {
namespace {

// a + b into out; out may be a.
void add_into(const Tensor& a, const Tensor& b, const Tensor& out) {
  if constexpr (kBuiltWithCuda) {
    if (a.device().is_cuda()) return cuda_add(a, b, out);
  }
  dispatch_floating("accumulate", a.dtype(), [&]<class T>() {
    const T* x = a.data<T>();
    const T* y = b.data<T>();
    T* z = out.data<T>();
    const std::int64_t n = a.numel();
#pragma omp parallel for simd schedule(static) if (n > 65536)
    for (std::int64_t i = 0; i < n; ++i) z[i] = x[i] + y[i];
  });
}

// Gradients of parameters are kept in f32 whatever their compute copy is.
DType leaf_dtype(DType dtype) { return dtype == DType::bf16 ? DType::f32 : dtype; }

}  // namespace

void GradSlot::accumulate(const Tensor& g) {
  move_early_out();
  if (leaf && grad.defined()) {
    if (fresh) {
      grad.copy_from(g.dtype() == grad.dtype() ? g : g.to(grad.dtype()));
    } else {
      add_into(grad, g.reshape(grad.shape()), grad);
    }
    fresh = false;
    return;
  }
  if (!grad.defined()) {
    grad = leaf ? g.to(leaf_dtype(g.dtype())) : g;
    fresh = false;
    return;
  }
  FULCRUM_CHECK(grad.numel() == g.numel(), "gradients of {} and {} elements", grad.shape(),
                g.shape());
  // The present gradient may also be held by another slot: add in place only when it is ours alone.
  const Tensor out = grad.unshared() ? grad : Tensor::empty_like(grad);
  add_into(grad, g.reshape(grad.shape()), out);
  grad = out;
}

GradSlot::Target GradSlot::target(const Shape& shape, DType dtype, Device device) {
  move_early_out();
  const bool add = grad.defined() && !(leaf && fresh);
  if (!grad.defined()) {
    grad = Tensor::empty(shape, leaf ? leaf_dtype(dtype) : dtype, device);
  } else if (add && !leaf && !grad.unshared()) {
    grad = grad.clone();  // also held by another slot
  }
  fresh = false;
  return {grad.reshape(shape), add};
}

std::shared_ptr<EarlyGradient> GradSlot::begin_early(const Shape& shape, DType dtype,
                                                     Device device) {
  auto early = std::make_shared<EarlyGradient>();
  const auto other = early_.lock();
  early->in_place = leaf && fresh && grad.defined() && grad.dtype() == dtype &&
                    grad.device() == device && !(other && other->in_place);
  early->value = early->in_place ? grad.reshape(shape) : Tensor::empty(shape, dtype, device);
  if (early->in_place) early_ = early;
  return early;
}

bool GradSlot::adopt(EarlyGradient& early) {
  const bool whole = leaf && fresh && early.value.dtype() == leaf_dtype(early.value.dtype());
  if (early.in_place) {
    FULCRUM_CHECK(whole && grad.raw() == early.value.raw(),
                  "the buffer of an early gradient changed hands");
  } else if (whole && !grad.defined()) {
    grad = early.value;
  } else {
    return false;
  }
  early.in_place = false;
  fresh = false;
  return true;
}

void GradSlot::move_early_out() {
  if (const auto early = early_.lock(); early && early->in_place) {
    early->value = early->value.clone();
    early->in_place = false;
  }
  early_.reset();
}

Tensor make_leaf(const Tensor& value) {
  Tensor leaf = value.detach();
  auto slot = std::make_shared<GradSlot>();
  slot->leaf = true;
  leaf.set_slot(std::move(slot));
  return leaf;
}

}  // namespace fulcrum
