#include <array>
#include <cmath>

#include "apps/bench/case.h"
#include "apps/bench/inputs.h"
#include "framework/autograd/tape.h"
#include "framework/core/determinism.h"
#include "framework/ops/attention.h"
#include "framework/ops/balance_loss.h"
#include "framework/ops/cross_entropy.h"
#include "framework/ops/embedding.h"
#include "framework/ops/grouped_matmul.h"
#include "framework/ops/matmul.h"
#include "framework/ops/norm.h"
#include "framework/ops/permute.h"
#include "framework/ops/rope.h"
#include "framework/ops/rotary_attention.h"
#include "framework/ops/router.h"
#include "framework/ops/swiglu.h"

namespace fulcrum::apps {
namespace {

// The models whose operators are timed.
struct Sizes {
  std::int64_t tokens, sequence, width, heads, head_dim, ffn, vocabulary;
  std::int64_t experts, top_k, expert_width;
};

// The 1.36 B dense and the 3.66 B sparse model of configs/bench, or their small CPU forms.
Sizes sizes_of(Device device) {
  if (device.is_cpu()) return {2048, 256, 384, 6, 64, 1024, 8192, 16, 4, 128};
  return {16384, 4096, 2048, 16, 128, 5632, 32000, 64, 6, 1408};
}

struct Bench {
  Device device;
  DType dtype;
  Sizes s;

  double element() const { return static_cast<double>(size_of(dtype)); }
  BenchInput activation(const Shape& shape, std::uint64_t seed) const {
    return {random_values(shape, dtype, device, seed), BenchInput::Kind::activation};
  }
  // A matrix of parameters.
  BenchInput weight(const Shape& shape, std::uint64_t seed) const {
    return {random_values(shape, dtype, device, seed, 0.02), BenchInput::Kind::parameter};
  }
  // A vector of parameters: f32 beside bf16.
  BenchInput vector(std::int64_t width, std::uint64_t seed) const {
    return {random_values({width}, DType::f32, device, seed), BenchInput::Kind::parameter};
  }
  // Bytes of so many values of the dtype.
  double bytes(double values) const { return values * element(); }
};

std::string text(std::initializer_list<std::int64_t> sizes) {
  std::string out;
  for (const std::int64_t n : sizes) out += (out.empty() ? "" : " x ") + std::to_string(n);
  return out;
}

using Tensors = std::vector<Tensor>;

BenchCase linear_case(const Bench& b, const char* name, std::int64_t in, std::int64_t out) {
  const double flops = 2.0 * static_cast<double>(b.s.tokens) * static_cast<double>(in * out);
  return {std::string("linear ") + name,
          text({b.s.tokens, out, in}),
          {b.activation({b.s.tokens, in}, 1), b.weight({out, in}, 2)},
          [](const Tensors& x) { return Tensors{ops::linear(x[0], x[1])}; },
          {flops, 0.0},
          {2.0 * flops, 0.0}};
}

std::vector<BenchCase> linear_cases(const Bench& b) {
  return {linear_case(b, "qkv", b.s.width, 3 * b.s.heads * b.s.head_dim),
          linear_case(b, "output", b.s.heads * b.s.head_dim, b.s.width),
          linear_case(b, "gate_up", b.s.width, 2 * b.s.ffn),
          linear_case(b, "down", b.s.ffn, b.s.width)};
}

struct AttentionSizes {
  std::int64_t batch, heads, kv_heads, length, dim;

  double scale() const { return 1.0 / std::sqrt(static_cast<double>(dim)); }
  // Two products, halved by causality; backward has five.
  double flops() const {
    return 2.0 * static_cast<double>(batch * heads) * static_cast<double>(length * length * dim);
  }
  std::string name() const { return text({batch, heads, kv_heads, length, dim}); }
};

BenchCase attention_case(const Bench& b, const AttentionSizes& z, bool exact) {
  return {exact ? "causal_attention" : "causal_attention, any order,",
          z.name(),
          {b.activation({z.batch, z.heads, z.length, z.dim}, 1),
           b.activation({z.batch, z.kv_heads, z.length, z.dim}, 2),
           b.activation({z.batch, z.kv_heads, z.length, z.dim}, 3)},
          [z, exact](const Tensors& x) {
            set_deterministic(exact);
            return Tensors{ops::causal_attention(x[0], x[1], x[2], z.scale())};
          },
          {exact ? z.flops() : 0.0, 0.0},
          {2.5 * z.flops(), 0.0}};
}

std::vector<BenchCase> attention_cases(const Bench& b) {
  const AttentionSizes z{b.s.tokens / b.s.sequence, b.s.heads, b.s.heads, b.s.sequence,
                         b.s.head_dim};
  const Shape fused = {z.batch, z.length, 3 * z.heads * z.dim};
  const double passes = b.bytes(2.0 * static_cast<double>(fused.numel()));
  std::vector<BenchCase> cases;
  // with long sequences and shared key heads too
  std::vector<AttentionSizes> sizes = {z};
  if (b.device.is_cuda())
    sizes.insert(sizes.end(), {{1, 16, 16, 8192, 128}, {1, 64, 4, 8192, 128}});
  for (const AttentionSizes& size : sizes) {
    if (b.device.is_cuda()) cases.push_back(attention_case(b, size, false));
    cases.push_back(attention_case(b, size, true));
  }
  cases.push_back({"rotary_attention",
                   z.name(),
                   {b.activation(fused, 4)},
                   [z](const Tensors& x) {
                     return Tensors{ops::rotary_attention(x[0], z.heads, z.kv_heads, z.dim, 10000.0,
                                                          z.scale())};
                   },
                   {z.flops(), 0.0},
                   {2.5 * z.flops(), 0.0}});
  cases.push_back({"split_qkv_rope",
                   text({b.s.tokens, fused[2]}),
                   {b.activation(fused, 4)},
                   [z](const Tensors& x) {
                     const ops::Qkv y =
                         ops::split_qkv_rope(x[0], z.heads, z.kv_heads, z.dim, 10000.0);
                     return Tensors{y.query, y.key, y.value};
                   },
                   {0.0, passes},
                   {0.0, passes}});
  return cases;
}

std::vector<BenchCase> elementwise_cases(const Bench& b) {
  const Shape shape = {b.s.tokens, b.s.width};
  const double row = b.bytes(static_cast<double>(shape.numel()));
  const double hidden = b.bytes(static_cast<double>(b.s.tokens * b.s.ffn));
  return {{"rms_norm",
           text({b.s.tokens, b.s.width}),
           {b.activation(shape, 1), b.vector(b.s.width, 2)},
           [](const Tensors& x) { return Tensors{ops::rms_norm(x[0], x[1], 1e-6)}; },
           {0.0, 2.0 * row},
           {0.0, 3.0 * row}},
          {"add_rms_norm",
           text({b.s.tokens, b.s.width}),
           {b.activation(shape, 1), b.activation(shape, 2), b.vector(b.s.width, 3)},
           [](const Tensors& x) {
             const ops::NormedSum y = ops::add_rms_norm(x[0], x[1], x[2], 1e-6);
             return Tensors{y.sum, y.normed};
           },
           {0.0, 4.0 * row},
           {0.0, 4.0 * row}},
          {"swiglu",
           text({b.s.tokens, 2 * b.s.ffn}),
           {b.activation({b.s.tokens, 2 * b.s.ffn}, 4)},
           [](const Tensors& x) { return Tensors{ops::swiglu(x[0])}; },
           {0.0, 3.0 * hidden},
           {0.0, 5.0 * hidden}}};
}

std::vector<BenchCase> vocabulary_cases(const Bench& b) {
  const double row = b.bytes(static_cast<double>(b.s.tokens * b.s.width));
  const BenchInput x = b.activation({b.s.tokens, b.s.width}, 1);
  const BenchInput head = b.weight({b.s.vocabulary, b.s.width}, 2);
  const Tensor ids = random_ids({b.s.tokens}, b.s.vocabulary, b.device, 3);
  const double flops =
      2.0 * static_cast<double>(b.s.tokens) * static_cast<double>(b.s.vocabulary * b.s.width);
  const auto loss = [ids, n = b.s.tokens](const Tensors& in) {
    return ops::linear_cross_entropy(in[0], in[1], ids, 1.0 / static_cast<double>(n), 0.0).loss;
  };
  const std::string shape = text({b.s.tokens, b.s.vocabulary, b.s.width});
  return {{"embedding",
           text({b.s.tokens, b.s.width}),
           {head},
           [ids](const Tensors& in) { return Tensors{ops::embedding(in[0], ids)}; },
           {0.0, 2.0 * row},
           {0.0, row + 4.0 * static_cast<double>(head.value.numel())}},
          {"linear_cross_entropy",
           shape,
           {x, head},
           [loss](const Tensors& in) { return Tensors{loss(in)}; },
           {flops, 0.0},
           {}},
          // when recording, forward forms the gradients too
          {"linear_cross_entropy, gradients,",
           shape,
           {x, head},
           [loss](const Tensors& in) {
             Tape tape;
             const Tape::Scope recording(tape);
             Tensors leaves = {in[0].detach(), make_leaf(in[1])};
             leaves[0].set_slot(std::make_shared<GradSlot>());
             return Tensors{loss(leaves).detach()};
           },
           {3.0 * flops, 0.0},
           {}}};
}

std::vector<BenchCase> expert_cases(const Bench& b) {
  const std::int64_t rows = b.s.tokens * b.s.top_k;
  const BenchInput logits = {random_values({b.s.tokens, b.s.experts}, DType::f32, b.device, 1),
                             BenchInput::Kind::activation};
  ops::RouterOptions options;
  options.top_k = b.s.top_k;
  const ops::Routing routing = ops::route(logits.value, {}, options);
  const ops::Permutation order = ops::make_permutation(routing.experts, b.s.experts);
  const BenchInput weights = {routing.weights.detach(), BenchInput::Kind::activation};
  const double row = b.bytes(static_cast<double>(b.s.tokens * b.s.width));
  const double hidden = b.bytes(static_cast<double>(rows * b.s.expert_width));
  const double scores = 4.0 * static_cast<double>(logits.value.numel());
  const auto k = static_cast<double>(b.s.top_k);
  return {{"route",
           text({b.s.tokens, b.s.experts}),
           {logits},
           [options](const Tensors& x) { return Tensors{ops::route(x[0], {}, options).weights}; },
           {0.0, 2.0 * scores},
           {0.0, 2.0 * scores}},
          {"expert_balance_loss",
           text({b.s.tokens, b.s.experts}),
           {logits},
           [counts = routing.counts, n = b.s.tokens, k = b.s.top_k](const Tensors& x) {
             return Tensors{ops::expert_balance_loss(x[0], counts, k, n)};
           },
           {0.0, scores},
           {0.0, scores}},
          {"make_permutation",
           text({b.s.tokens, b.s.top_k}),
           {},
           [experts = routing.experts, count = b.s.experts](const Tensors&) {
             return Tensors{ops::make_permutation(experts, count).source};
           },
           {0.0, 20.0 * static_cast<double>(rows)},
           {}},
          {"permute",
           text({rows, b.s.width}),
           {b.activation({b.s.tokens, b.s.width}, 2)},
           [order](const Tensors& x) { return Tensors{ops::permute(x[0], order)}; },
           {0.0, (1.0 + k) * row},
           {0.0, (1.0 + k) * row}},
          {"weighted_swiglu",
           text({rows, 2 * b.s.expert_width}),
           {b.activation({rows, 2 * b.s.expert_width}, 3), weights},
           [order](const Tensors& x) { return Tensors{ops::weighted_swiglu(x[0], x[1], order)}; },
           {0.0, 3.0 * hidden},
           {0.0, 5.0 * hidden}},
          // with the shared experts' output
          {"combine",
           text({rows, b.s.width}),
           {b.activation({rows, b.s.width}, 4), b.activation({b.s.tokens, b.s.width}, 5)},
           [order](const Tensors& x) { return Tensors{ops::combine(x[0], order, x[1])}; },
           {0.0, (2.0 + k) * row},
           {0.0, (1.0 + k) * row}}};
}

// Even groups: e of m rows, matrices n x k.
BenchCase grouped_case(const Bench& b, std::int64_t e, std::int64_t m, std::int64_t n,
                       std::int64_t k) {
  std::vector<std::int64_t> ends(static_cast<std::size_t>(e + 1));
  for (std::int64_t g = 0; g <= e; ++g) ends[static_cast<std::size_t>(g)] = g * m;
  const Tensor offsets = Tensor::from(ends, {e + 1}).to(b.device);
  const double flops = 2.0 * static_cast<double>(e * m) * static_cast<double>(n * k);
  return {"grouped_linear",
          text({e, m, n, k}),
          {b.activation({e * m, k}, 1), b.weight({e, n, k}, 2)},
          [offsets](const Tensors& x) { return Tensors{ops::grouped_linear(x[0], x[1], offsets)}; },
          {flops, 0.0},
          {2.0 * flops, 0.0}};
}

}  // namespace

std::vector<BenchGroup> operator_groups(Device device, DType dtype) {
  const Bench b{device, dtype, sizes_of(device)};
  std::vector<BenchGroup> groups = {
      {"linear", [=] { return linear_cases(b); }},
      {"attention", [=] { return attention_cases(b); }},
      {"elementwise", [=] { return elementwise_cases(b); }},
      {"vocabulary", [=] { return vocabulary_cases(b); }},
      {"experts", [=] { return expert_cases(b); }},
  };
  for (const BenchGroup& group : dense_groups(device, dtype)) groups.push_back(group);
  for (const BenchGroup& group : memory_groups(device, dtype)) groups.push_back(group);
  if (device.is_cpu()) {
    groups.push_back({"grouped", [=] { return std::vector{grouped_case(b, 16, 512, 256, 384)}; }});
    return groups;
  }
  // a small mixture, of many short rows
  Bench small = b;
  small.s.tokens = 32768;
  small.s.width = 384;
  small.s.expert_width = 128;
  groups.push_back({"experts", [=] { return expert_cases(small); }});
  // E, rows of a group, N, K: shapes of DeepSeekMoE, of a wide and of a coarse mixture, and of a
  // small model
  for (const auto& [e, m, n, k] : {std::array<std::int64_t, 4>{64, 512, 2816, 2048},
                                   {64, 512, 2048, 1408},
                                   {72, 680, 1792, 2560},
                                   {16, 2048, 4096, 2048},
                                   {64, 1536, 2816, 2048},
                                   {64, 3072, 256, 384},
                                   {64, 3072, 384, 128}}) {
    groups.push_back({"grouped", [=] { return std::vector{grouped_case(b, e, m, n, k)}; }});
  }
  return groups;
}

}  // namespace fulcrum::apps
