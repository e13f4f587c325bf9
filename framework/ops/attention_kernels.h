#pragma once
// Kernels of causal attention. Internal to attention.h, which has the formula and the shapes.

#include <algorithm>
#include <cstdint>
#include <limits>

namespace fulcrum::ops {

// Products of 64 x 64 tiles run in OpenBLAS's kernels for small matrices, which pack nothing; that
// needs the right-hand matrix untransposed, so tiles that would be read transposed are turned once
// beforehand.
inline constexpr std::int64_t kTile = 64;

struct AttentionSizes {
  std::int64_t batch, heads, kv_heads, length, dim, value_dim;

  std::int64_t tiles() const { return (length + kTile - 1) / kTile; }
  std::int64_t group() const { return heads / kv_heads; }
  // Rows of tile i.
  std::int64_t rows(std::int64_t i) const { return std::min(kTile, length - i * kTile); }
  // Whether threads pay.
  bool parallel() const {
    return batch * heads * length * length * std::max(dim, value_dim) > (1 << 17);
  }
};

template <class T>
struct AttentionInputs {
  const T *query, *key, *value;
};

template <class T>
void attention_forward(const AttentionSizes& z, const AttentionInputs<T>& in, T scale, T* output,
                       T* log_sum);

// Where a gradient goes; data is null when it is not wanted.
template <class T>
struct AttentionTarget {
  T* data = nullptr;
  bool add = false;
};

// What forward left, and the gradient of its output.
template <class T>
struct AttentionOutputs {
  const T *output, *log_sum, *grad;
};

template <class T>
void attention_backward(const AttentionSizes& z, const AttentionInputs<T>& in,
                        const AttentionOutputs<T>& out, T scale, const AttentionTarget<T>& dq,
                        const AttentionTarget<T>& dk, const AttentionTarget<T>& dv);

// out[c, r] = in[r, c], for out with rows kTile apart.
template <class T>
inline void transpose_tile(const T* in, std::int64_t ld, std::int64_t rows, std::int64_t columns,
                           T* out) {
  constexpr std::int64_t kBlock = 16;
  std::int64_t c = 0;
  if (rows == kTile) {
    for (; c + kBlock <= columns; c += kBlock) {
      for (std::int64_t r = 0; r < kTile; r += kBlock) {
        for (std::int64_t j = 0; j < kBlock; ++j) {
#pragma GCC unroll 16
          for (std::int64_t i = 0; i < kBlock; ++i) {
            out[(c + j) * kTile + r + i] = in[(r + i) * ld + c + j];
          }
        }
      }
    }
  }
  for (; c < columns; ++c) {
    for (std::int64_t r = 0; r < rows; ++r) out[c * kTile + r] = in[r * ld + c];
  }
}

// Hides columns of row r of a tile from the softmax. Rows are then always processed at their whole
// width of kTile, a constant that the compiler unrolls for; exp makes the hidden scores zero.
template <class T>
inline void hide(T* row, std::int64_t begin, std::int64_t end) {
  std::fill(row + begin, row + end, -std::numeric_limits<T>::infinity());
}

}  // namespace fulcrum::ops
