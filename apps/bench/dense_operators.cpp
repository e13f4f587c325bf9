// Dense operators one by one: what models use through larger ones (the kernel inside the
// cross-entropy, the products of Newton-Schulz), routers' products, and plain arithmetic.

#include <array>

#include "apps/bench/case.h"
#include "apps/bench/inputs.h"
#include "framework/ops/cross_entropy.h"
#include "framework/ops/cross_entropy_cuda.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/gemm_cuda.h"
#include "framework/ops/matmul.h"

namespace fulcrum::apps {
namespace {

using Tensors = std::vector<Tensor>;
using Kind = BenchInput::Kind;

std::string text(std::initializer_list<std::int64_t> sizes) {
  std::string out;
  for (const std::int64_t n : sizes) out += (out.empty() ? "" : " x ") + std::to_string(n);
  return out;
}

std::vector<BenchCase> arithmetic_cases(Device device, DType dtype, std::int64_t tokens,
                                        std::int64_t width) {
  const double row = static_cast<double>(tokens * width * size_of(dtype));
  const BenchInput x{random_values({tokens, width}, dtype, device, 1), Kind::activation};
  const BenchInput y{random_values({tokens, width}, dtype, device, 2), Kind::activation};
  const BenchInput bias{random_values({width}, DType::f32, device, 3), Kind::parameter};
  const std::string shape = text({tokens, width});
  return {{"add",
           shape,
           {x, y},
           [](const Tensors& in) { return Tensors{ops::add(in[0], in[1])}; },
           {0.0, 3.0 * row},
           {}},
          {"scale",
           shape,
           {x},
           [](const Tensors& in) { return Tensors{ops::scale(in[0], 0.5)}; },
           {0.0, 2.0 * row},
           {0.0, 2.0 * row}},
          {"add_bias",
           shape,
           {x, bias},
           [](const Tensors& in) { return Tensors{ops::add_bias(in[0], in[1])}; },
           {0.0, 2.0 * row},
           {0.0, row}},
          {"sum",
           shape,
           {x},
           [](const Tensors& in) { return Tensors{ops::sum(in[0])}; },
           {0.0, row},
           {0.0, row}}};
}

// Logits in f32 from activations of any dtype.
BenchCase router_case(Device device, DType dtype, std::int64_t tokens, std::int64_t width,
                      std::int64_t experts) {
  const double row = static_cast<double>(tokens * width * size_of(dtype));
  const double logits = 4.0 * static_cast<double>(tokens * experts);
  return {
      "linear router",
      text({tokens, experts, width}),
      {{random_values({tokens, width}, dtype, device, 1), Kind::activation},
       {random_values({experts, width}, DType::f32, device, 2, 0.02), Kind::parameter}},
      [](const Tensors& x) { return Tensors{ops::linear(x[0], x[1], ops::MatmulPrecision::f32)}; },
      {0.0, row + logits},
      {0.0, 2.0 * row + logits}};
}

// The pass over a chunk of logits that turns them into their gradient. Repeats read what the last
// one wrote.
BenchCase softmax_case(Device device, DType dtype, std::int64_t vocabulary) {
  const ops::LogitsChunk chunk =
      ops::cross_entropy_chunk(16384, vocabulary, size_of(dtype), device);
  const Tensor logits =
      random_values({256, chunk.columns}, dtype, device, 1);  // drawing all would take long
  const Tensor all = Tensor::empty({chunk.tokens, chunk.columns}, dtype, device);
  for (std::int64_t t = 0; t < chunk.tokens; t += 256) {
    const std::int64_t count = std::min<std::int64_t>(256, chunk.tokens - t);
    all.slice(t, t + count).copy_from(logits.slice(0, count));
  }
  const Tensor targets = random_ids({chunk.tokens}, vocabulary, device, 2);
  const Tensor losses = Tensor::empty({2, chunk.tokens}, DType::f32, device);
  const double bytes = static_cast<double>(chunk.tokens * vocabulary * size_of(dtype));
  return {"softmax_rows",
          text({chunk.tokens, vocabulary}),
          {{all, Kind::constant}},
          [=](const Tensors& x) {
            if constexpr (kBuiltWithCuda) {
              ops::cuda::softmax_rows(x[0], vocabulary, targets, 1.0, 1e-4, true,
                                      losses.slice(0, 1), losses.slice(1, 2));
            }
            return Tensors{};
          },
          {0.0, 2.0 * bytes},
          {}};
}

// Newton-Schulz: x · xᵀ of stacked matrices, and the product of that with x.
std::vector<BenchCase> batched_cases(Device device, DType dtype, std::int64_t count,
                                     std::int64_t rows, std::int64_t width) {
  const BenchInput x{random_values({count, rows, width}, dtype, device, 1), Kind::constant};
  const BenchInput square{random_values({count, rows, rows}, dtype, device, 2), Kind::constant};
  const double flops = 2.0 * static_cast<double>(count * rows) * static_cast<double>(rows * width);
  const auto multiply = [](const Tensor& a, const Tensor& b, bool tb, const Tensor& out) {
    if constexpr (kBuiltWithCuda) {
      ops::cuda::multiply_batched(a, false, b, tb, out, 1.0f, 0.0f);
    }
    return Tensors{out};
  };
  const Tensor gram = Tensor::empty_like(square.value);
  const Tensor product = Tensor::empty_like(x.value);
  return {{"batched x xT",
           text({count, rows, rows, width}),
           {x},
           [=](const Tensors& in) { return multiply(in[0], in[0], true, gram); },
           {flops, 0.0},
           {}},
          {"batched a x",
           text({count, rows, width, rows}),
           {square, x},
           [=](const Tensors& in) { return multiply(in[0], in[1], false, product); },
           {flops, 0.0},
           {}}};
}

}  // namespace

std::vector<BenchGroup> dense_groups(Device device, DType dtype) {
  const std::int64_t tokens = device.is_cpu() ? 2048 : 16384;
  const std::int64_t width = device.is_cpu() ? 384 : 2048;
  const std::int64_t experts = device.is_cpu() ? 16 : 64;
  std::vector<BenchGroup> groups = {
      {"arithmetic", [=] { return arithmetic_cases(device, dtype, tokens, width); }},
      {"router", [=] { return std::vector{router_case(device, dtype, tokens, width, experts)}; }}};
  if (device.is_cpu()) return groups;
  for (const std::int64_t vocabulary : {16384, 32000, 50257, 128256, 151936, 262144}) {
    groups.push_back(
        {"softmax", [=] { return std::vector{softmax_case(device, dtype, vocabulary)}; }});
  }
  // All projections and all gates of the dense model's layers, and an expert's matrices.
  for (const auto& [count, rows, columns] :
       {std::array<std::int64_t, 3>{24, 2048, 2048}, {24, 2048, 5632}, {384, 1408, 2048}}) {
    groups.push_back(
        {"batched", [=] { return batched_cases(device, dtype, count, rows, columns); }});
  }
  return groups;
}

}  // namespace fulcrum::apps
