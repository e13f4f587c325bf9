#include "framework/core/cuda_kernel.cuh"
#include "framework/ops/rope_cuda.h"

namespace fulcrum::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kHeads = 4;  // that a thread turns by the angles it holds

// Where head h of token t of sequence b lies: beside the other heads of its token.
template <class T>
struct TokenHeads {
  T* data;
  int heads;

  __device__ T* at(std::int64_t b, int t, int h, int seq, int dim) const {
    return data + ((b * seq + t) * heads + h) * dim;
  }
};

// Among the tokens of its head, in one of three tensors; null in one that is undefined.
template <class T>
struct SeparateHeads {
  T *query, *key, *value;
  int heads, kv_heads;

  __device__ T* at(std::int64_t b, int t, int h, int seq, int dim) const {
    if (h < heads) return in(query, b * heads + h, t, seq, dim);
    h -= heads;
    if (h < kv_heads) return in(key, b * kv_heads + h, t, seq, dim);
    return in(value, b * kv_heads + h - kv_heads, t, seq, dim);
  }
  __device__ static T* in(T* data, std::int64_t head, int t, int seq, int dim) {
    return data == nullptr ? nullptr : data + (head * seq + t) * dim;
  }
};

// A row of N packs' worth of a token's heads: a thread takes elements i..i+N of both halves of
// every lanes-th head. The first `turned` heads are turned, the others copied.
template <int N, class T, class From, class To>
__global__ void __launch_bounds__(kThreads)
    turn_kernel(From from, To to, const float* table, float sign, int seq, int dim, int heads,
                int turned, int lanes) {
  const unsigned item = blockIdx.x * kThreads + threadIdx.x;
  const int half = dim / 2;
  const unsigned packs = half / N;
  const int i = static_cast<int>(item % packs) * N;
  const int lane = static_cast<int>(item / packs % lanes);
  const int t = static_cast<int>(item / (packs * lanes));
  if (t >= seq) return;
  Pack<T, N> first[kHeads], second[kHeads];
#pragma unroll
  for (int k = 0; k < kHeads; ++k) {
    const int h = lane + k * lanes;
    const T* x = h < heads ? from.at(blockIdx.y, t, h, seq, dim) : nullptr;
    if (x != nullptr) {
      first[k] = Pack<T, N>::load(x + i);
      second[k] = Pack<T, N>::load(x + half + i);
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        first[k].set(j, 0.0f);
        second[k].set(j, 0.0f);
      }
    }
  }
  const float* angles = table + static_cast<std::int64_t>(t) * dim + i;
  float cosine[N], sine[N];
#pragma unroll
  for (int j = 0; j < N; j += N < 4 ? N : 4) {
    constexpr int kWidth = N < 4 ? N : 4;
    const auto c = Pack<float, kWidth>::load(angles + j);
    const auto s = Pack<float, kWidth>::load(angles + half + j);
#pragma unroll
    for (int w = 0; w < kWidth; ++w) {
      cosine[j + w] = c[w];
      sine[j + w] = sign * s[w];
    }
  }
#pragma unroll
  for (int k = 0; k < kHeads; ++k) {
    const int h = lane + k * lanes;
    if (h >= heads) continue;
    if (h < turned) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float a = first[k][j];
        const float b = second[k][j];
        first[k].set(j, a * cosine[j] - b * sine[j]);
        second[k].set(j, b * cosine[j] + a * sine[j]);
      }
    }
    T* y = to.at(blockIdx.y, t, h, seq, dim);
    first[k].store(y + i);
    second[k].store(y + half + i);
  }
}

// Of the heads of all tokens: which are turned, and how the table turns them.
struct Turn {
  const Tensor& table;
  std::int64_t first_position;
  double sign;
  std::int64_t batch, seq, dim, heads, turned;
};

template <class T, class From, class To>
void launch(const Turn& turn, bool wide, From from, To to) {
  const std::int64_t half = turn.dim / 2;
  const std::int64_t lanes = ceil_div(turn.heads, kHeads);
  const std::int64_t packs = wide ? half / kWide<T> : half;
  const dim3 grid(static_cast<unsigned>(ceil_div(turn.seq * lanes * packs, kThreads)),
                  static_cast<unsigned>(turn.batch));
  const float* angles = device_data<float>(turn.table) + turn.first_position * turn.dim;
  const auto run = [&]<int N>() {
    turn_kernel<N, T><<<grid, kThreads, 0, compute_stream()>>>(
        from, to, angles, static_cast<float>(turn.sign), static_cast<int>(turn.seq),
        static_cast<int>(turn.dim), static_cast<int>(turn.heads), static_cast<int>(turn.turned),
        static_cast<int>(lanes));
  };
  if (wide) {
    run.template operator()<kWide<T>>();
  } else {
    run.template operator()<1>();
  }
  FULCRUM_CUDA_LAUNCHED();
}

// Whether halves of heads can be moved 16 bytes at a time.
template <class T>
bool are_wide(std::int64_t dim, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    if (!is_wide<T>(p, dim / 2)) return false;  // null is aligned
  }
  return true;
}

}  // namespace

void split_qkv_rope(const Tensor& qkv, const Tensor& table, std::int64_t first_position,
                    const Tensor& query, const Tensor& key, const Tensor& value) {
  if (qkv.numel() == 0) return;
  dispatch_cuda("split_qkv_rope", qkv.dtype(), [&]<class T>() {
    const std::int64_t heads = query.dim(1);
    const std::int64_t kv_heads = key.dim(1);
    const TokenHeads<const T> from{device_data<T>(qkv), static_cast<int>(heads + 2 * kv_heads)};
    const SeparateHeads<T> to{device_data<T>(query), device_data<T>(key), device_data<T>(value),
                              static_cast<int>(heads), static_cast<int>(kv_heads)};
    launch<T>({table, first_position, 1.0, query.dim(0), query.dim(2), query.dim(3),
               heads + 2 * kv_heads, heads + kv_heads},
              are_wide<T>(query.dim(3), {from.data, to.query, to.key, to.value}), from, to);
  });
}

void merge_qkv_rope(const Tensor& query, const Tensor& key, const Tensor& value,
                    const Tensor& table, std::int64_t first_position, std::int64_t heads,
                    std::int64_t kv_heads, const Tensor& qkv) {
  if (qkv.numel() == 0) return;
  dispatch_cuda("split_qkv_rope", qkv.dtype(), [&]<class T>() {
    const std::int64_t all = heads + 2 * kv_heads;
    const std::int64_t dim = qkv.dim(2) / all;
    const SeparateHeads<const T> from{device_data<T>(query), device_data<T>(key),
                                      device_data<T>(value), static_cast<int>(heads),
                                      static_cast<int>(kv_heads)};
    const TokenHeads<T> to{device_data<T>(qkv), static_cast<int>(all)};
    launch<T>({table, first_position, -1.0, qkv.dim(0), qkv.dim(1), dim, all, heads + kv_heads},
              are_wide<T>(dim, {to.data, from.query, from.key, from.value}), from, to);
  });
}

void turn_qkv(const Tensor& from, const Tensor& table, double sign, std::int64_t heads,
              std::int64_t kv_heads, const Tensor& to) {
  if (from.numel() == 0) return;
  dispatch_cuda("rotary_attention", from.dtype(), [&]<class T>() {
    const std::int64_t all = heads + 2 * kv_heads;
    const std::int64_t turned = heads + kv_heads;
    const std::int64_t dim = from.dim(2) / all;
    const TokenHeads<const T> x{device_data<T>(from), static_cast<int>(all)};
    const TokenHeads<T> y{device_data<T>(to), static_cast<int>(all)};
    launch<T>(
        {table, 0, sign, from.dim(0), from.dim(1), dim, x.data == y.data ? turned : all, turned},
        are_wide<T>(dim, {x.data, y.data}), x, y);
  });
}

void rope(const Tensor& x, const Tensor& table, double sign, std::int64_t first_position,
          const Tensor& out) {
  if (x.numel() == 0) return;
  dispatch_cuda("rope", x.dtype(), [&]<class T>() {
    const std::int64_t heads = x.dim(1);
    const SeparateHeads<const T> from{device_data<T>(x), nullptr, nullptr, static_cast<int>(heads),
                                      0};
    const SeparateHeads<T> to{device_data<T>(out), nullptr, nullptr, static_cast<int>(heads), 0};
    launch<T>({table, first_position, sign, x.dim(0), x.dim(2), x.dim(3), heads, heads},
              are_wide<T>(x.dim(3), {from.query, to.query}), from, to);
  });
}

}  // namespace fulcrum::ops::cuda
