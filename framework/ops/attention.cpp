#include "framework/ops/attention.h"

#include "framework/autograd/tape.h"
#include "framework/ops/attention_cuda.h"
#include "framework/ops/attention_kernels.h"
#include "framework/ops/dispatch.h"

namespace fulcrum::ops {
namespace {

AttentionSizes sizes_of(const Tensor& query, const Tensor& key, const Tensor& value) {
  FULCRUM_REQUIRE(
      query.rank() == 4 && key.rank() == 4 && value.rank() == 4 && query.dim(0) == key.dim(0) &&
          query.dim(2) == key.dim(2) && query.dim(3) == key.dim(3) && key.dim(0) == value.dim(0) &&
          key.dim(1) == value.dim(1) && key.dim(2) == value.dim(2),
      "causal_attention: query [B, H, S, D], key [B, KV, S, D], value [B, KV, S, Dv]; got "
      "{}, {}, {}",
      query.shape(), key.shape(), value.shape());
  FULCRUM_REQUIRE(key.dim(1) >= 1 && query.dim(1) % key.dim(1) == 0 && query.dim(3) >= 1,
                  "causal_attention: the query heads must be a multiple of the key heads, and D at "
                  "least 1; got {}, {}",
                  query.shape(), key.shape());
  FULCRUM_REQUIRE(query.dtype() == key.dtype() && query.dtype() == value.dtype(),
                  "causal_attention: one dtype for all; got {}, {}, {}", query.dtype(), key.dtype(),
                  value.dtype());
  return {query.dim(0), query.dim(1), key.dim(1), query.dim(2), query.dim(3), value.dim(3)};
}

// On the CPU, straight into the gradients.
template <class T>
void backward(Backward& b, const AttentionSizes& z, const Tensor& query, const Tensor& key,
              const Tensor& value, double scale, const Tensor& output, const Tensor& log_sum) {
  const auto same = [&](std::size_t i, std::size_t j) {
    return b.needs(i) && b.needs(j) && &b.slot(i) == &b.slot(j);
  };
  // One tensor in several roles: its tiles are not finished one role after the other, so no role
  // may begin by overwriting.
  const bool shared = same(0, 1) || same(0, 2) || same(1, 2);
  const auto target = [&](std::size_t input) {
    if (!b.needs(input)) return AttentionTarget<T>{};
    const GradSlot::Target t = b.target(input);
    if (shared && !t.add) t.tensor.zero();
    return AttentionTarget<T>{t.tensor.template data<T>(), shared || t.add};
  };
  const Tensor grad = b.grad(0);
  const AttentionTarget<T> dq = target(0);
  const AttentionTarget<T> dk = target(1);
  const AttentionTarget<T> dv = target(2);
  attention_backward<T>(z, {query.data<T>(), key.data<T>(), value.data<T>()},
                        {output.data<T>(), log_sum.data<T>(), grad.data<T>()},
                        static_cast<T>(scale), dq, dk, dv);
}

}  // namespace

Tensor causal_attention(const Tensor& query, const Tensor& key, const Tensor& value, double scale) {
  const AttentionSizes z = sizes_of(query, key, value);
  Tensor output =
      Tensor::empty({z.batch, z.length, z.heads, z.value_dim}, query.dtype(), query.device());
  const Tensor log_sum = Tensor::empty({z.batch, z.heads, z.length},
                                       accumulation_dtype(query.dtype()), query.device());
  dispatch(
      "causal_attention", query,
      [&]<class T>() {
        attention_forward<T>(z, {query.data<T>(), key.data<T>(), value.data<T>()},
                             static_cast<T>(scale), output.data<T>(), log_sum.data<T>());
      },
      [&] { cuda::attention(query, key, value, scale, output, log_sum); });
  if (Tape* tape = Tape::recording({query, key, value})) {
    tape->record(
        "causal_attention", {query, key, value}, {&output},
        [=, query = query.detach(), key = key.detach(), value = value.detach(),
         output = output.detach()](Backward& b) {
          dispatch(
              "causal_attention", query,
              [&]<class T>() { backward<T>(b, z, query, key, value, scale, output, log_sum); },
              [&] {
                const Tensor dq = Tensor::empty_like(query);
                const Tensor dk = Tensor::empty_like(key);
                const Tensor dv = Tensor::empty_like(value);
                cuda::attention_backward(query, key, value, scale, output, log_sum, b.grad(0), dq,
                                         dk, dv);
                b.accumulate(0, dq);
                b.accumulate(1, dk);
                b.accumulate(2, dv);
              });
        });
  }
  return output;
}

}  // namespace fulcrum::ops
