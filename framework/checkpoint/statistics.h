#pragma once
// Numbers that describe a tensor, gathered block by block so that its size does not matter.

#include <cstdint>
#include <limits>

#include "framework/core/tensor.h"

namespace fulcrum::checkpoint {

// Over the finite elements, in double; the order of summation depends only on the blocks that are
// added. Values of integer tensors count as numbers.
class Statistics {
 public:
  void add(const Tensor& block);
  void merge(const Statistics& other);

  std::int64_t elements() const { return finite_ + nan_ + infinite_; }
  std::int64_t finite() const { return finite_; }
  std::int64_t nan() const { return nan_; }
  std::int64_t infinite() const { return infinite_; }
  std::int64_t zeros() const { return zeros_; }
  double norm() const;                 // square root of the sum of squares
  double mean() const;                 // 0 when no element is finite
  double min() const { return min_; }  // +infinity when no element is finite
  double max() const { return max_; }

 private:
  template <class T>
  void add_elements(const T* elements, std::int64_t n);

  std::int64_t finite_ = 0, nan_ = 0, infinite_ = 0, zeros_ = 0;
  double sum_ = 0.0, squares_ = 0.0;
  double min_ = std::numeric_limits<double>::infinity();
  double max_ = -std::numeric_limits<double>::infinity();
};

}  // namespace fulcrum::checkpoint
