#pragma once
// Shape: up to eight dimensions, row-major.

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "framework/core/error.h"

namespace fulcrum {

class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) { assign(dims.begin(), dims.end()); }
  explicit Shape(const std::vector<std::int64_t>& dims) { assign(dims.begin(), dims.end()); }

  int rank() const { return rank_; }
  // Negative indices count from the end.
  std::int64_t operator[](int i) const { return dims_[index(i)]; }
  std::int64_t& operator[](int i) { return dims_[index(i)]; }
  const std::int64_t* begin() const { return dims_.data(); }
  const std::int64_t* end() const { return dims_.data() + rank_; }
  std::int64_t numel() const {
    std::int64_t n = 1;
    for (std::int64_t d : *this) n *= d;
    return n;
  }
  bool operator==(const Shape& other) const {
    return rank_ == other.rank_ && std::equal(begin(), end(), other.begin());
  }

 private:
  template <class It>
  void assign(It first, It last) {
    FULCRUM_REQUIRE(last - first <= kMaxRank, "shape: at most {} dimensions; got {}", kMaxRank,
                    last - first);
    for (; first != last; ++first) {
      FULCRUM_REQUIRE(*first >= 0, "shape: dimensions must not be negative; got {}", *first);
      dims_[rank_++] = *first;
    }
  }
  int index(int i) const {
    const int j = i < 0 ? i + rank_ : i;
    FULCRUM_REQUIRE(j >= 0 && j < rank_, "shape: dimension {} of a shape with {} dimensions", i,
                    rank_);
    return j;
  }

  std::array<std::int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

// "[4, 128, 64]"
inline std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (int i = 0; i < shape.rank(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace fulcrum

template <>
struct fmt::formatter<fulcrum::Shape> : fmt::formatter<std::string_view> {
  auto format(const fulcrum::Shape& shape, fmt::format_context& context) const {
    return fmt::formatter<std::string_view>::format(fulcrum::to_string(shape), context);
  }
};
