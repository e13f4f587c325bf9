#include "framework/ops/attention_cudnn.h"

#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cudnn_frontend.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <unordered_map>

#include "framework/core/cuda_stream.h"
#include "framework/core/determinism.h"

namespace fulcrum::ops::cuda {
namespace {

namespace fe = cudnn_frontend;
using Described = std::shared_ptr<fe::graph::Tensor_attributes>;

constexpr std::int64_t kMostScoreBytes = std::int64_t{2} << 30;

enum class Pass { forward, backward, deterministic_backward };
enum Role : std::int64_t { kQuery = 1, kKey, kValue, kOutput, kLogSum, kGrad, kDq, kDk, kDv };

// What a plan depends on: the pass, and the sizes of what one call takes of the tensors.
struct Problem {
  Pass pass;
  std::int64_t batch, heads, kv_heads, length, dim, value_dim;
  std::int64_t output_heads;  // of the whole output: its tokens are output_heads · value_dim apart
  float scale;

  auto operator<=>(const Problem&) const = default;
};

struct Plan {
  std::shared_ptr<fe::graph::Graph> graph;  // null where cuDNN has no kernel
  std::int64_t workspace = 0;
};

cudnnHandle_t handle() {
  static const cudnnHandle_t created = [] {
    cudnnHandle_t handle = nullptr;
    cudnnStatus_t status = cudnnCreate(&handle);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnnSetStream(handle, compute_stream());
    FULCRUM_CHECK(status == CUDNN_STATUS_SUCCESS, "cuDNN: {}", cudnnGetErrorString(status));
    return handle;
  }();
  return created;
}

// The graph of a problem, without a plan.
std::shared_ptr<fe::graph::Graph> describe(const Problem& p) {
  auto graph = std::make_shared<fe::graph::Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  const auto set = [&](fe::graph::Tensor_attributes& tensor, Role role) {
    const bool of_keys = role == kKey || role == kValue || role == kDk || role == kDv;
    const bool of_values = role == kValue || role == kOutput || role == kGrad || role == kDv;
    const std::int64_t heads = of_keys ? p.kv_heads : p.heads;
    const std::int64_t dim = role == kLogSum ? 1 : of_values ? p.value_dim : p.dim;
    tensor.set_uid(role).set_dim({p.batch, heads, p.length, dim});
    if (role == kOutput || role == kGrad) {
      const std::int64_t token = p.output_heads * dim;
      tensor.set_stride({p.length * token, dim, token, 1});
    } else {
      tensor.set_stride({heads * p.length * dim, p.length * dim, dim, 1});
    }
    if (role == kLogSum) tensor.set_data_type(fe::DataType_t::FLOAT);
  };
  const auto input = [&](Role role) {
    fe::graph::Tensor_attributes tensor;
    set(tensor, role);
    return graph->tensor(tensor);
  };
  const auto output = [&](const Described& tensor, Role role) {
    set(*tensor, role);
    tensor->set_output(true);
  };
  const auto causal = [&](auto& attributes) {
    attributes.set_attn_scale(p.scale)
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
  };
  const Described query = input(kQuery), key = input(kKey), value = input(kValue);
  if (p.pass == Pass::forward) {
    fe::graph::SDPA_attributes attributes;
    causal(attributes);
    attributes.set_name("attention").set_generate_stats(true);
    const auto [result, log_sum] = graph->sdpa(query, key, value, attributes);
    output(result, kOutput);
    output(log_sum, kLogSum);
  } else {
    fe::graph::SDPA_backward_attributes attributes;
    causal(attributes);
    attributes.set_name("attention_backward")
        .set_deterministic_algorithm(p.pass == Pass::deterministic_backward);
    const Described result = input(kOutput), grad = input(kGrad), log_sum = input(kLogSum);
    const auto [dq, dk, dv] =
        graph->sdpa_backward(query, key, value, result, grad, log_sum, attributes);
    output(dq, kDq);
    output(dk, kDk);
    output(dv, kDv);
  }
  return graph;
}

// Kept for the next call.
const Plan& plan_of(const Problem& p) {
  static auto* plans = new std::map<Problem, Plan>;
  const auto [at, added] = plans->try_emplace(p);
  Plan& plan = at->second;
  if (!added) return plan;
  auto graph = describe(p);
  fe::error_t error = graph->build(handle(), {fe::HeurMode_t::A});
  if (error.is_good()) error = graph->get_workspace_size(plan.workspace);
  if (error.is_good()) {
    plan.graph = std::move(graph);
    return plan;
  }
  static bool warned = false;
  if (!warned) {
    warned = true;
    std::fprintf(stderr,
                 "fulcrum: warning: cuDNN %zu refuses attention%s of %lld positions and heads of "
                 "%lld (%s); Fulcrum's own kernels, which are slower, stand in\n",
                 cudnnGetVersion(), p.pass == Pass::forward ? "" : "'s gradient",
                 static_cast<long long>(p.length), static_cast<long long>(p.dim),
                 error.get_message().c_str());
  }
  return plan;
}

Problem problem_of(Pass pass, const Tensor& query, const Tensor& key, const Tensor& value,
                   double scale) {
  return {pass,         query.dim(0), query.dim(1),
          key.dim(1),   query.dim(2), query.dim(3),
          value.dim(3), query.dim(1), static_cast<float>(scale)};
}

// The limits that cuDNN documents; they need no warning.
bool suits_cudnn(const Problem& p) {
  const auto suits_dim = [](std::int64_t dim) { return dim % 8 == 0 && dim > 0 && dim <= 256; };
  return p.length > 1 && suits_dim(p.dim) && suits_dim(p.value_dim);
}

void run(const Plan& plan, Device device, std::unordered_map<std::int64_t, void*> tensors) {
  const Tensor workspace =
      Tensor::empty({std::max<std::int64_t>(plan.workspace, 1)}, DType::u8, device);
  fe::error_t error = plan.graph->execute(handle(), tensors, workspace.raw());
  FULCRUM_CHECK(error.is_good(), "cuDNN attention: {}", error.get_message());
}

std::int64_t largest_divisor(std::int64_t n, std::int64_t most) {
  std::int64_t divisor = std::min(n, most);
  while (n % divisor != 0) --divisor;
  return divisor;
}

}  // namespace

bool cudnn_attention(const Tensor& query, const Tensor& key, const Tensor& value, double scale,
                     const Tensor& output, const Tensor& log_sum) {
  const Problem p = problem_of(Pass::forward, query, key, value, scale);
  if (!suits_cudnn(p)) return false;
  const Plan& plan = plan_of(p);
  if (plan.graph == nullptr) return false;
  run(plan, query.device(),
      {{kQuery, query.raw()},
       {kKey, key.raw()},
       {kValue, value.raw()},
       {kOutput, output.raw()},
       {kLogSum, log_sum.raw()}});
  return true;
}

bool cudnn_attention_backward(const Tensor& query, const Tensor& key, const Tensor& value,
                              double scale, const Tensor& output, const Tensor& log_sum,
                              const Tensor& grad, const Tensor& dq, const Tensor& dk,
                              const Tensor& dv) {
  Problem p = problem_of(deterministic() ? Pass::deterministic_backward : Pass::backward, query,
                         key, value, scale);
  if (!suits_cudnn(p)) return false;
  const std::int64_t group = p.heads / p.kv_heads;
  if (p.pass == Pass::deterministic_backward) {
    const std::int64_t groups = kMostScoreBytes / (group * p.length * p.length * 2);
    if (groups == 0) return false;
    if (groups >= p.kv_heads) {
      p.batch = largest_divisor(p.batch, groups / p.kv_heads);
    } else {
      p.batch = 1;
      p.kv_heads = largest_divisor(p.kv_heads, groups);
      p.heads = p.kv_heads * group;
    }
  }
  const Plan& plan = plan_of(p);
  if (plan.graph == nullptr) return false;
  for (std::int64_t b = 0; b < query.dim(0); b += p.batch) {
    for (std::int64_t h = 0; h < key.dim(1); h += p.kv_heads) {
      // From head `head` of sequence b on; tokens: [B, S, heads, dim], else [B, heads, S, dim].
      const auto part = [b](const Tensor& x, std::int64_t head, bool tokens = false) {
        const std::int64_t along = x.rank() == 3 ? x.dim(2)
                                   : tokens      ? x.dim(3)
                                                 : x.dim(2) * x.dim(3);
        const std::int64_t first = b * (x.numel() / x.dim(0)) + head * along;
        return static_cast<void*>(static_cast<char*>(x.raw()) + first * size_of(x.dtype()));
      };
      run(plan, query.device(),
          {{kQuery, part(query, h * group)},
           {kKey, part(key, h)},
           {kValue, part(value, h)},
           {kOutput, part(output, h * group, true)},
           {kLogSum, part(log_sum, h * group)},
           {kGrad, part(grad, h * group, true)},
           {kDq, part(dq, h * group)},
           {kDk, part(dk, h)},
           {kDv, part(dv, h)}});
    }
  }
  return true;
}

}  // namespace fulcrum::ops::cuda
