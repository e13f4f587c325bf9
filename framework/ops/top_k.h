#pragma once
// Internal to the router and its losses: the k largest of a row.

#include <cmath>
#include <cstdint>
#include <limits>

namespace fulcrum::ops {

// Keeps the k best of the values offered, in descending order, in memory of the caller's. Ids must
// be offered in ascending order: equal values then stay with the lower id. NaN counts as −∞, so
// that a diverged row still selects valid ids.
template <class T>
class TopK {
 public:
  TopK(std::int64_t k, T* values, std::int32_t* ids) : k_(k), values_(values), ids_(ids) {}

  void offer(T value, std::int64_t id) {
    if (size_ == k_ && !(value > values_[k_ - 1])) return;
    if (std::isnan(value)) value = -std::numeric_limits<T>::infinity();
    std::int64_t i = size_ < k_ ? size_++ : k_ - 1;
    for (; i > 0 && value > values_[i - 1]; --i) {
      values_[i] = values_[i - 1];
      ids_[i] = ids_[i - 1];
    }
    values_[i] = value;
    ids_[i] = static_cast<std::int32_t>(id);
  }

 private:
  std::int64_t k_;
  T* values_;
  std::int32_t* ids_;
  std::int64_t size_ = 0;
};

}  // namespace fulcrum::ops
