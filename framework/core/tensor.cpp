#include "framework/core/tensor.h"

#include <cstring>

#include "framework/autograd/grad_slot.h"
#include "framework/core/cuda_elementwise.h"
#include "framework/core/cuda_memory.h"
#include "framework/core/host_memory.h"

namespace fulcrum {

Tensor Tensor::empty(const Shape& shape, DType dtype, Device device) {
  Tensor t;
  t.shape_ = shape;
  t.dtype_ = dtype;
  t.storage_ = allocate(static_cast<std::size_t>(shape.numel() * size_of(dtype)), device);
  return t;
}

Tensor Tensor::zeros(const Shape& shape, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.zero();
  return t;
}

Tensor Tensor::full(const Shape& shape, double value, DType dtype, Device device) {
  Tensor t = empty(shape, dtype, device);
  t.fill(value);
  return t;
}

Tensor Tensor::reshape(std::initializer_list<std::int64_t> dims) const {
  std::vector<std::int64_t> resolved(dims);
  std::int64_t known = 1;
  std::int64_t* open = nullptr;
  for (std::int64_t& d : resolved) {
    if (d == -1) {
      FULCRUM_REQUIRE(open == nullptr, "reshape: only one dimension may be -1; tensor {}", shape_);
      open = &d;
    } else {
      known *= d;
    }
  }
  if (open != nullptr) {
    FULCRUM_REQUIRE(known > 0 && numel() % known == 0,
                    "reshape: {} elements do not divide by {}; tensor {}", numel(), known, shape_);
    *open = numel() / known;
  }
  return reshape(Shape(resolved));
}

Tensor Tensor::reshape(const Shape& shape) const {
  FULCRUM_REQUIRE(shape.numel() == numel(), "reshape: {} has {} elements, {} has {}", shape_,
                  numel(), shape, shape.numel());
  Tensor view = *this;
  view.shape_ = shape;
  return view;
}

void Tensor::exchange_memory(const Tensor& other) const {
  for (const Tensor* t : {this, &other}) {
    // A tensor without memory has given its own away before.
    const auto held = static_cast<std::int64_t>(t->storage_->bytes);
    FULCRUM_CHECK(t->offset_ == 0 && (held == t->bytes() || held == 0),
                  "{} {} is a part of its memory", t->dtype_, t->shape_);
  }
  storage_->swap(*other.storage_);
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  FULCRUM_REQUIRE(rank() >= 1 && 0 <= begin && begin <= end && end <= dim(0),
                  "slice: rows {}..{} of {}", begin, end, shape_);
  Tensor view = detach();
  const std::int64_t row = dim(0) == 0 ? 0 : bytes() / dim(0);
  view.offset_ += begin * row;
  view.shape_[0] = end - begin;
  return view;
}

Tensor Tensor::detach() const {
  Tensor view = *this;
  view.slot_ = nullptr;
  return view;
}

Tensor Tensor::clone() const {
  Tensor copy = empty_like(*this);
  copy.copy_from(*this);
  return copy;
}

namespace {

template <class From, class To>
void convert(const Tensor& from, const Tensor& to) {
  const From* source = from.data<From>();
  To* target = to.data<To>();
  const std::int64_t n = from.numel();
#pragma omp parallel for simd schedule(static) if (n > 65536)
  for (std::int64_t i = 0; i < n; ++i) {
    if constexpr (std::is_same_v<From, double> && std::is_same_v<To, BFloat16>) {
      target[i] = BFloat16(static_cast<float>(source[i]));
    } else if constexpr (std::is_same_v<From, BFloat16>) {
      target[i] = static_cast<To>(static_cast<float>(source[i]));
    } else {
      target[i] = static_cast<To>(source[i]);
    }
  }
}

template <class From>
void convert_from(const Tensor& from, const Tensor& to) {
  switch (to.dtype()) {
    case DType::f64:
      return convert<From, double>(from, to);
    case DType::f32:
      return convert<From, float>(from, to);
    case DType::bf16:
      return convert<From, BFloat16>(from, to);
    default:
      FULCRUM_REQUIRE(false, "to: no conversion from {} to {}", from.dtype(), to.dtype());
  }
}

}  // namespace

double Tensor::item() const {
  FULCRUM_REQUIRE(numel() == 1, "item: a tensor of one element; got {}", shape_);
  const Tensor host = to(Device{});
  switch (dtype_) {
    case DType::f64:
      return host.data<double>()[0];
    case DType::f32:
      return host.data<float>()[0];
    case DType::bf16:
      return static_cast<float>(host.data<BFloat16>()[0]);
    case DType::i64:
      return static_cast<double>(host.data<std::int64_t>()[0]);
    case DType::i32:
      return host.data<std::int32_t>()[0];
    case DType::u16:
      return host.data<std::uint16_t>()[0];
    case DType::u8:
      return host.data<std::uint8_t>()[0];
  }
  return 0.0;
}

Tensor Tensor::to(Device device) const {
  if (device == this->device()) return *this;
  const Tensor copy = empty(shape_, dtype_, device);
  copy.copy_from(*this);
  return copy;
}

Tensor Tensor::to(DType dtype) const {
  if (dtype == dtype_) return clone();
  Tensor copy = empty(shape_, dtype, device());
  if constexpr (kBuiltWithCuda) {
    if (device().is_cuda()) {
      cuda_convert(*this, copy);
      return copy;
    }
  }
  switch (dtype_) {
    case DType::f64:
      convert_from<double>(*this, copy);
      break;
    case DType::f32:
      convert_from<float>(*this, copy);
      break;
    case DType::bf16:
      convert_from<BFloat16>(*this, copy);
      break;
    default:
      FULCRUM_REQUIRE(false, "to: no conversion from {} to {}", dtype_, dtype);
  }
  return copy;
}

void Tensor::fill(double value) const {
  if constexpr (kBuiltWithCuda) {
    if (device().is_cuda()) return cuda_fill(*this, value);
  }
  const auto assign = [&]<class T>(T element) {
    T* p = data<T>();
    const std::int64_t n = numel();
    for (std::int64_t i = 0; i < n; ++i) p[i] = element;
  };
  switch (dtype_) {
    case DType::f64:
      return assign(value);
    case DType::f32:
      return assign(static_cast<float>(value));
    case DType::bf16:
      return assign(BFloat16(static_cast<float>(value)));
    case DType::i64:
      return assign(static_cast<std::int64_t>(value));
    case DType::i32:
      return assign(static_cast<std::int32_t>(value));
    case DType::u16:
      return assign(static_cast<std::uint16_t>(value));
    case DType::u8:
      return assign(static_cast<std::uint8_t>(value));
  }
}

void Tensor::zero() const {
  if (bytes() == 0) return;
  if (device().is_cpu()) {
    std::memset(raw(), 0, static_cast<std::size_t>(bytes()));
  } else {
    cuda_set_bytes(raw(), 0, static_cast<std::size_t>(bytes()), device().index);
  }
}

void Tensor::copy_from(const Tensor& source) const {
  FULCRUM_REQUIRE(source.dtype() == dtype_ && source.numel() == numel(),
                  "copy_from: {} {} into {} {}", source.dtype(), source.shape(), dtype_, shape_);
  copy_bytes(source.raw(), source.device());
}

void Tensor::copy_from_host(const void* source, std::int64_t count) const {
  FULCRUM_REQUIRE(count == bytes(), "copy_from_host: {} bytes into {} {} ({} bytes)", count, dtype_,
                  shape_, bytes());
  copy_bytes(source, Device{});
}

void Tensor::copy_bytes(const void* source, Device source_device) const {
  const auto count = static_cast<std::size_t>(bytes());
  if (count == 0) return;
  if (device().is_cpu() && source_device.is_cpu()) {
    copy_memory(raw(), source, count);
  } else {
    cuda_copy(raw(), device(), source, source_device, count);
  }
}

const Tensor& Tensor::grad() const {
  static const Tensor undefined;
  return slot_ ? slot_->grad : undefined;
}

}  // namespace fulcrum
