#include "framework/nn/parameter.h"

#include <numeric>

#include "framework/autograd/grad_slot.h"
#include "framework/core/philox.h"

namespace fulcrum {

const char* name_of(ParameterKind kind) {
  switch (kind) {
    case ParameterKind::embedding:
      return "embedding";
    case ParameterKind::head:
      return "head";
    case ParameterKind::matrix:
      return "matrix";
    case ParameterKind::router:
      return "router";
    case ParameterKind::expert:
      return "expert";
    case ParameterKind::vector:
      return "vector";
    case ParameterKind::table:
      return "table";
  }
  return "?";
}

namespace {

// Kinds whose matrix products run in bf16 when the store computes in it.
bool is_rounded(ParameterKind kind) {
  return kind == ParameterKind::embedding || kind == ParameterKind::head ||
         kind == ParameterKind::matrix || kind == ParameterKind::expert;
}

}  // namespace

Tensor Parameter::gradient() const {
  const GradSlot& s = slot();
  if (!s.grad.defined() || s.fresh) return {};
  FULCRUM_REQUIRE(s.grad.numel() == value.numel() && s.grad.dtype() == master.dtype(),
                  "the gradient of {} must be {} {}; got {} {}", name, master.dtype(),
                  value.shape(), s.grad.dtype(), s.grad.shape());
  return s.grad.reshape(value.shape())
      .slice(master_rows.first, master_rows.first + master_rows.count);
}

void Parameter::round() const {
  if (!rounded()) return;
  value.slice(master_rows.first, master_rows.first + master_rows.count)
      .copy_from(master.to(DType::bf16));
}

ParameterStore::ParameterStore(std::uint64_t seed, Placement placement, ShardPolicy policy)
    : seed_(seed), placement_(placement), policy_(std::move(policy)) {}

Parameter& ParameterStore::create(const std::string& name, ParameterKind kind,
                                  const Shape& global_shape, Initializer initializer,
                                  std::vector<std::int64_t> parts) {
  for (const auto& p : parameters_) FULCRUM_CHECK(p->name != name, "two parameters named {}", name);
  FULCRUM_CHECK(global_shape.rank() >= 1, "{} has no dimension", name);
  FULCRUM_CHECK(parts.empty() || std::accumulate(parts.begin(), parts.end(), std::int64_t{0}) ==
                                     global_shape[-2],
                "{} {}: its parts do not add up", name, global_shape);
  auto parameter = std::make_unique<Parameter>();
  parameter->name = name;
  parameter->kind = kind;
  parameter->global_shape = global_shape;
  parameter->parts = std::move(parts);
  parameter->shard = policy_ ? policy_(kind, global_shape[0]) : RowRange{0, global_shape[0]};
  Shape local = global_shape;
  local[0] = parameter->shard.count;
  const Tensor value = Tensor::empty(local, dtype());
  switch (initializer.kind) {
    case Initializer::Kind::zero:
      value.zero();
      break;
    case Initializer::Kind::one:
      value.fill(1.0);
      break;
    case Initializer::Kind::normal: {
      const std::int64_t row = global_shape[0] == 0 ? 0 : global_shape.numel() / global_shape[0];
      fill_normal(value, initializer.std, seed_, stream_of(name), parameter->shard.first * row);
      break;
    }
  }
  parameter->master = value.device() == device() ? value : value.to(device());
  parameter->master_rows = {0, parameter->shard.count};
  const bool rounded = compute_dtype() == DType::bf16 && is_rounded(kind);
  parameter->value = make_leaf(rounded ? parameter->master.to(DType::bf16) : parameter->master);
  parameters_.push_back(std::move(parameter));
  return *parameters_.back();
}

Buffer& ParameterStore::create_buffer(const std::string& name, const Tensor& value) {
  for (const auto& b : buffers_) FULCRUM_CHECK(b->name != name, "two buffers named {}", name);
  buffers_.push_back(std::make_unique<Buffer>(Buffer{name, value}));
  return *buffers_.back();
}

Parameter& ParameterStore::find(const std::string& name) const {
  for (const auto& p : parameters_) {
    if (p->name == name) return *p;
  }
  throw InternalError(fmt::format("no parameter named {}", name));
}

void ParameterStore::zero_gradients() const {
  for (const auto& p : parameters_) {
    p->slot().fresh = true;
    p->slot().sparse.clear();
  }
}

}  // namespace fulcrum
