#include "framework/checkpoint/statistics.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace fulcrum::checkpoint {
namespace {
constexpr std::int64_t kChunk = 1 << 16;
}

template <class T>
void Statistics::add_elements(const T* elements, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) {
    double value;
    if constexpr (std::is_same_v<T, BFloat16>) {
      value = static_cast<float>(elements[i]);
    } else {
      value = static_cast<double>(elements[i]);
    }
    if (!std::isfinite(value)) {
      ++(std::isnan(value) ? nan_ : infinite_);
      continue;
    }
    ++finite_;
    zeros_ += value == 0.0 ? 1 : 0;
    sum_ += value;
    squares_ += value * value;
    min_ = std::min(min_, value);
    max_ = std::max(max_, value);
  }
}

void Statistics::add(const Tensor& block) {
  const std::int64_t n = block.numel();
  const std::int64_t chunks = (n + kChunk - 1) / kChunk;
  std::vector<Statistics> parts(static_cast<std::size_t>(chunks));
  const auto add_all = [&]<class T>(const T* elements) {
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (std::int64_t c = 0; c < chunks; ++c) {
      parts[static_cast<std::size_t>(c)].add_elements(elements + c * kChunk,
                                                      std::min(kChunk, n - c * kChunk));
    }
  };
  switch (block.dtype()) {
    case DType::f64:
      add_all(block.data<double>());
      break;
    case DType::f32:
      add_all(block.data<float>());
      break;
    case DType::bf16:
      add_all(block.data<BFloat16>());
      break;
    case DType::i64:
      add_all(block.data<std::int64_t>());
      break;
    case DType::i32:
      add_all(block.data<std::int32_t>());
      break;
    case DType::u16:
      add_all(block.data<std::uint16_t>());
      break;
    case DType::u8:
      add_all(block.data<std::uint8_t>());
      break;
  }
  for (const Statistics& part : parts) merge(part);
}

void Statistics::merge(const Statistics& other) {
  finite_ += other.finite_;
  nan_ += other.nan_;
  infinite_ += other.infinite_;
  zeros_ += other.zeros_;
  sum_ += other.sum_;
  squares_ += other.squares_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
}

double Statistics::norm() const { return std::sqrt(squares_); }

double Statistics::mean() const { return finite_ == 0 ? 0.0 : sum_ / static_cast<double>(finite_); }

}  // namespace fulcrum::checkpoint
