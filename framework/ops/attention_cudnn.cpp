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
#include "framework/ops/attention.h"

namespace fulcrum::ops::cuda {
namespace {

namespace fe = cudnn_frontend;
using Described = std::shared_ptr<fe::graph::Tensor_attributes>;

enum Role : std::int64_t { kQuery = 1, kKey, kValue, kOutput, kLogSum, kGrad, kDq, kDk, kDv };

bool of_keys(Role role) { return role == kKey || role == kValue || role == kDk || role == kDv; }

// Elements from a sequence, a head and a token to the next.
struct Strides {
  std::int64_t sequence, head, token;
};

// What a plan depends on: the pass, the layout, and the sizes of what one call takes of the
// tensors. all_heads and all_kv_heads are those of the whole tensors.
struct Problem {
  AttentionPass pass;
  bool fused;
  std::int64_t batch, heads, kv_heads, length, dim, value_dim, all_heads, all_kv_heads;
  float scale;

  auto operator<=>(const Problem&) const = default;

  std::int64_t dim_of(Role role) const {
    if (role == kLogSum) return 1;
    return role == kValue || role == kOutput || role == kGrad || role == kDv ? value_dim : dim;
  }
  Strides strides_of(Role role) const {
    const std::int64_t d = dim_of(role);
    if (role == kOutput || role == kGrad) return {length * all_heads * d, d, all_heads * d};
    if (fused && role != kLogSum) {
      const std::int64_t token = (all_heads + 2 * all_kv_heads) * d;
      return {length * token, d, token};
    }
    return {(of_keys(role) ? all_kv_heads : all_heads) * length * d, length * d, d};
  }
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
    Strides strides = p.strides_of(role);
    if (role == kLogSum) strides.sequence = p.heads * p.length;  // cuDNN insists, also of one
    tensor.set_uid(role)
        .set_dim({p.batch, of_keys(role) ? p.kv_heads : p.heads, p.length, p.dim_of(role)})
        .set_stride({strides.sequence, strides.head, strides.token, 1});
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
  if (p.pass == AttentionPass::forward) {
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
        .set_deterministic_algorithm(p.pass == AttentionPass::deterministic_backward);
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
                 cudnnGetVersion(), p.pass == AttentionPass::forward ? "" : "'s gradient",
                 static_cast<long long>(p.length), static_cast<long long>(p.dim),
                 error.get_message().c_str());
  }
  return plan;
}

std::int64_t largest_divisor(std::int64_t n, std::int64_t most) {
  std::int64_t divisor = std::min(n, most);
  while (n % divisor != 0) --divisor;
  return divisor;
}

// The part of the work that one call takes; of no sequences where it is not supported whatever the
// GPU.
Problem problem_of(const AttentionHeads& x, double scale, AttentionPass pass) {
  Problem p{pass,
            x.is_fused,
            x.batch,
            x.heads,
            x.kv_heads,
            x.length,
            x.dim,
            x.value_dim,
            x.heads,
            x.kv_heads,
            static_cast<float>(scale)};
  const auto suits = [](std::int64_t dim) { return dim % 8 == 0 && dim > 0 && dim <= 256; };
  if (x.batch == 0 || x.length <= 1 || !suits(x.dim) || !suits(x.value_dim)) {
    p.batch = 0;
  } else if (pass == AttentionPass::deterministic_backward) {
    const std::int64_t group = x.heads / x.kv_heads;
    const std::int64_t groups = kMostScoreBytes / (group * x.length * x.length * 2);
    if (groups == 0) {
      p.batch = 0;
    } else if (groups >= x.kv_heads) {
      p.batch = largest_divisor(x.batch, groups / x.kv_heads);
    } else {
      p.batch = 1;
      p.kv_heads = largest_divisor(x.kv_heads, groups);
      p.heads = p.kv_heads * group;
    }
  }
  return p;
}

struct Operand {
  Role role;
  void* data;
};

// Runs the plan over all parts of the tensors.
void run(const Problem& p, const AttentionHeads& x, std::initializer_list<Operand> operands) {
  const Plan& plan = plan_of(p);
  const Tensor workspace =
      Tensor::empty({std::max<std::int64_t>(plan.workspace, 1)}, DType::u8, x.device);
  for (std::int64_t b = 0; b < x.batch; b += p.batch) {
    for (std::int64_t h = 0; h < x.kv_heads; h += p.kv_heads) {
      std::unordered_map<std::int64_t, void*> pointers;
      for (const Operand& operand : operands) {
        const Strides strides = p.strides_of(operand.role);
        const std::int64_t head = of_keys(operand.role) ? h : h * (x.heads / x.kv_heads);
        const std::int64_t size = size_of(operand.role == kLogSum ? DType::f32 : DType::bf16);
        pointers[operand.role] =
            static_cast<char*>(operand.data) + (b * strides.sequence + head * strides.head) * size;
      }
      fe::error_t error = plan.graph->execute(handle(), pointers, workspace.raw());
      FULCRUM_CHECK(error.is_good(), "cuDNN attention: {}", error.get_message());
    }
  }
}

}  // namespace

AttentionHeads AttentionHeads::separate(const Tensor& query, const Tensor& key,
                                        const Tensor& value) {
  return {false,        query.dim(0), query.dim(1), key.dim(1),  query.dim(2),  query.dim(3),
          value.dim(3), query.raw(),  key.raw(),    value.raw(), query.device()};
}

AttentionHeads AttentionHeads::fused(const Tensor& qkv, std::int64_t heads, std::int64_t kv_heads) {
  const std::int64_t dim = qkv.dim(2) / (heads + 2 * kv_heads);
  char* query = static_cast<char*>(qkv.raw());
  char* key = query + heads * dim * size_of(DType::bf16);
  char* value = key + kv_heads * dim * size_of(DType::bf16);
  return {true, qkv.dim(0), heads, kv_heads, qkv.dim(1), dim, dim, query, key, value, qkv.device()};
}

AttentionPass backward_pass() {
  return deterministic() ? AttentionPass::deterministic_backward : AttentionPass::backward;
}

bool cudnn_supports(const AttentionHeads& heads, double scale, AttentionPass pass) {
  const Problem p = problem_of(heads, scale, pass);
  return p.batch > 0 && plan_of(p).graph != nullptr;
}

void cudnn_attention(const AttentionHeads& in, double scale, const Tensor& output,
                     const Tensor& log_sum) {
  run(problem_of(in, scale, AttentionPass::forward), in,
      {{kQuery, in.query},
       {kKey, in.key},
       {kValue, in.value},
       {kOutput, output.raw()},
       {kLogSum, log_sum.raw()}});
}

void cudnn_attention_backward(const AttentionHeads& in, double scale, const Tensor& output,
                              const Tensor& log_sum, const Tensor& grad, AttentionPass pass,
                              const AttentionHeads& gradients) {
  run(problem_of(in, scale, pass), in,
      {{kQuery, in.query},
       {kKey, in.key},
       {kValue, in.value},
       {kOutput, output.raw()},
       {kLogSum, log_sum.raw()},
       {kGrad, grad.raw()},
       {kDq, gradients.query},
       {kDk, gradients.key},
       {kDv, gradients.value}});
}

}  // namespace fulcrum::ops::cuda
