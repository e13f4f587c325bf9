#include "framework/ops/rotary_attention_cudnn.h"

#include "framework/autograd/tape.h"
#include "framework/ops/attention_cudnn.h"
#include "framework/ops/rope_cuda.h"
#include "framework/ops/rope_table.h"

namespace fulcrum::ops::cuda {
bool can_fuse_rotary_attention(const Tensor& qkv, std::int64_t heads, std::int64_t kv_heads,
                               double scale) {
  if (!qkv.device().is_cuda() || qkv.dtype() != DType::bf16 || qkv.numel() == 0) return false;
  const auto in = AttentionHeads::fused(qkv, heads, kv_heads);
  if (!cudnn_supports(in, scale, AttentionPass::forward)) return false;
  return Tape::recording({qkv}) == nullptr || cudnn_supports(in, scale, backward_pass());
}

Tensor rotary_attention(Tensor qkv, std::int64_t heads, std::int64_t kv_heads, double theta,
                        double scale) {
  const std::int64_t batch = qkv.dim(0);
  const std::int64_t length = qkv.dim(1);
  const std::int64_t dim = qkv.dim(2) / (heads + 2 * kv_heads);
  const Tensor table = angle_table(length, dim / 2, theta, qkv);
  const Tensor turned = qkv.unshared() ? qkv.detach() : Tensor::empty_like(qkv);
  turn_qkv(qkv, table, 1.0, heads, kv_heads, turned);
  Tensor output = Tensor::empty({batch, length, heads, dim}, qkv.dtype(), qkv.device());
  const Tensor log_sum = Tensor::empty({batch, heads, length}, DType::f32, qkv.device());
  cudnn_attention(AttentionHeads::fused(turned, heads, kv_heads), scale, output, log_sum);
  if (Tape* tape = Tape::recording({qkv})) {
    tape->record("rotary_attention", {qkv}, {&output},
                 [=, output = output.detach(), pass = backward_pass()](Backward& b) {
                   const Tensor gradient = Tensor::empty_like(turned);
                   cudnn_attention_backward(AttentionHeads::fused(turned, heads, kv_heads), scale,
                                            output, log_sum, b.grad(0), pass,
                                            AttentionHeads::fused(gradient, heads, kv_heads));
                   turn_qkv(gradient, table, -1.0, heads, kv_heads, gradient);
                   b.accumulate(0, gradient);
                 });
  }
  return output;
}

}  // namespace fulcrum::ops::cuda
