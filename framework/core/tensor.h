#pragma once
// Tensor: a handle to shared storage plus shape and dtype.
//
// Contiguous and row-major. Copying a Tensor copies the handle; clone() copies the elements. Views
// exist only by reshape and by slices of the leading dimension. A tensor that takes part in
// differentiation holds a gradient slot (autograd/tape.h); reshape keeps the slot, since a gradient
// is contiguous too and only its shape differs; slice and detach drop it.

#include <cstdint>
#include <memory>
#include <vector>

#include "framework/core/device.h"
#include "framework/core/dtype.h"
#include "framework/core/memory_pool.h"
#include "framework/core/shape.h"

namespace fulcrum {

struct GradSlot;

class Tensor {
 public:
  Tensor() = default;  // undefined

  static Tensor empty(const Shape& shape, DType dtype, Device device = {});
  static Tensor zeros(const Shape& shape, DType dtype, Device device = {});
  static Tensor full(const Shape& shape, double value, DType dtype, Device device = {});
  static Tensor empty_like(const Tensor& other) {
    return empty(other.shape(), other.dtype(), other.device());
  }
  static Tensor zeros_like(const Tensor& other) {
    return zeros(other.shape(), other.dtype(), other.device());
  }
  template <class T>
  static Tensor from(const std::vector<T>& values, const Shape& shape) {
    Tensor t = empty(shape, dtype_of<T>);
    t.copy_from_host(values.data(),
                     static_cast<std::int64_t>(values.size()) * size_of(dtype_of<T>));
    return t;
  }

  bool defined() const { return storage_ != nullptr; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(int i) const { return shape_[i]; }
  int rank() const { return shape_.rank(); }
  std::int64_t numel() const { return shape_.numel(); }
  std::int64_t bytes() const { return numel() * size_of(dtype_); }
  DType dtype() const { return dtype_; }
  Device device() const { return storage_ ? storage_->device : Device{}; }

  // Elements; T must match the dtype. Host tensors only.
  template <class T>
  T* data() const {
    FULCRUM_REQUIRE(dtype_ == dtype_of<T>, "tensor: data<{}> of a {} tensor {}",
                    name_of(dtype_of<T>), name_of(dtype_), shape_);
    FULCRUM_REQUIRE(device().is_cpu(), "tensor: host access to a tensor on {}", device());
    return static_cast<T*>(raw());
  }
  void* raw() const { return storage_ ? static_cast<char*>(storage_->data) + offset_ : nullptr; }
  template <class T>
  std::vector<T> to_vector() const {
    return std::vector<T>(data<T>(), data<T>() + numel());
  }

  // The value of a tensor of one element, of any dtype and on any device.
  double item() const;

  // Same elements, other shape; one dimension may be -1.
  Tensor reshape(std::initializer_list<std::int64_t> dims) const;
  Tensor reshape(const Shape& shape) const;
  // Rows begin..end of the leading dimension; shares memory, has no gradient.
  Tensor slice(std::int64_t begin, std::int64_t end) const;
  Tensor detach() const;
  Tensor clone() const;
  // Copy on another device; the tensor itself where it is there already.
  Tensor to(Device device) const;
  // Converted copy (floating dtypes among each other).
  Tensor to(DType dtype) const;

  void fill(double value) const;
  void zero() const;
  void copy_from(const Tensor& source) const;  // same numel and dtype
  void copy_from_host(const void* source, std::int64_t bytes) const;

  // Swaps the memory of two tensors that are whole (no slices); all handles of either see it.
  void exchange_memory(const Tensor& other) const;

  // True when no other tensor shares the memory.
  bool unshared() const { return storage_.use_count() == 1; }

  bool requires_grad() const { return slot_ != nullptr; }
  const std::shared_ptr<GradSlot>& slot() const { return slot_; }
  void set_slot(std::shared_ptr<GradSlot> slot) { slot_ = std::move(slot); }
  // Gradient of a leaf after backward; undefined when it got none.
  const Tensor& grad() const;

 private:
  void copy_bytes(const void* source, Device source_device) const;

  std::shared_ptr<Storage> storage_;
  std::shared_ptr<GradSlot> slot_;
  std::int64_t offset_ = 0;  // bytes
  Shape shape_;
  DType dtype_ = DType::f32;
};

}  // namespace fulcrum
