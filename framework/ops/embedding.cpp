#include "framework/ops/embedding.h"

#include <algorithm>

#include "framework/autograd/tape.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/embedding_cuda.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 32768;  // elements from which threads pay

template <class T>
void gather(const T* weight, const std::int32_t* ids, std::int64_t n, std::int64_t width, T* y) {
#pragma omp parallel for schedule(static) if (n * width > kParallel)
  for (std::int64_t t = 0; t < n; ++t) std::copy_n(weight + ids[t] * width, width, y + t * width);
}

// Threads own columns, and each walks all tokens: no two write the same place, and the order of
// every sum is fixed.
template <class T>
void scatter_add(const T* g, const std::int32_t* ids, std::int64_t n, std::int64_t width, T* d) {
  constexpr std::int64_t kColumns = 128;
  const std::int64_t blocks = (width + kColumns - 1) / kColumns;
#pragma omp parallel for schedule(static) if (n * width > kParallel)
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t first = block * kColumns;
    const std::int64_t count = std::min(kColumns, width - first);
    for (std::int64_t t = 0; t < n; ++t) {
      const T* from = g + t * width + first;
      T* to = d + ids[t] * width + first;
#pragma omp simd
      for (std::int64_t i = 0; i < count; ++i) to[i] += from[i];
    }
  }
}

template <class T>
void clear(T* d, std::int64_t n) {
#pragma omp parallel for simd schedule(static) if (n > kParallel)
  for (std::int64_t i = 0; i < n; ++i) d[i] = T(0);
}

void check_ids(const Tensor& ids, std::int64_t vocabulary) {
  const std::int32_t* id = ids.data<std::int32_t>();
  for (std::int64_t t = 0; t < ids.dim(0); ++t) {
    FULCRUM_REQUIRE(id[t] >= 0 && id[t] < vocabulary,
                    "embedding: id {} at position {} is outside the vocabulary of {}", id[t], t,
                    vocabulary);
  }
}

}  // namespace

Tensor embedding(const Tensor& weight, const Tensor& ids) {
  FULCRUM_REQUIRE(weight.rank() == 2 && ids.rank() == 1 && ids.dtype() == DType::i32 &&
                      ids.device() == weight.device(),
                  "embedding: needs weight [vocabulary, width] and ids i32 [n] on one device; got "
                  "{} on {} and {} {} on {}",
                  weight.shape(), weight.device(), ids.dtype(), ids.shape(), ids.device());
  if (ids.device().is_cpu()) check_ids(ids, weight.dim(0));
  const std::int64_t n = ids.dim(0);
  const std::int64_t width = weight.dim(1);
  Tensor y = Tensor::empty({n, width}, weight.dtype(), weight.device());
  dispatch(
      "embedding", weight,
      [&]<class T>() {
        gather<T>(weight.data<T>(), ids.data<std::int32_t>(), n, width, y.data<T>());
      },
      [&] { cuda::embedding(weight, ids, y); });
  if (Tape* tape = Tape::recording({weight})) {
    tape->record("embedding", {weight}, {&y}, [ids, shape = weight.shape()](Backward& b) {
      b.weight_gradient(0, [ids, shape, g = b.grad(0)](GradSlot& slot) {
        const auto target = slot.target(shape, accumulation_dtype(g.dtype()), g.device());
        dispatch(
            "embedding", g,
            [&]<class T>() {
              T* d = target.tensor.data<T>();
              if (!target.add) clear(d, shape.numel());
              scatter_add<T>(g.data<T>(), ids.data<std::int32_t>(), ids.dim(0), shape[1], d);
            },
            [&] { cuda::embedding_backward(g, ids, target.tensor, target.add); });
      });
    });
  }
  return y;
}

}  // namespace fulcrum::ops
