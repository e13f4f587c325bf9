#include "parallel/gradient_reducer.h"

#include <chrono>
#include <cmath>

#include "framework/autograd/grad_slot.h"
#include "parallel/progress_thread.h"

namespace fulcrum::parallel {
namespace {

constexpr std::int64_t kAlignment = 64;  // bytes between the starts of gradients, for vector loads

std::int64_t padded(const Tensor& value, DType gradient) {
  const std::int64_t elements = kAlignment / size_of(gradient);
  return (value.numel() + elements - 1) / elements * elements;
}

}  // namespace

GradientReducer::GradientReducer(const ParameterStore& store, const Mesh& mesh, double bucket_mib,
                                 const OptimizerSharding* sharding)
    : store_(store),
      sharding_(sharding),
      dense_group_(mesh.data().duplicate("data (gradients)")),
      expert_group_(mesh.expert_data().duplicate("expert data (gradients)")) {
  FULCRUM_REQUIRE(bucket_mib > 0, "gradient reducer: buckets must be larger than {} MiB",
                  bucket_mib);
  const auto limit = static_cast<std::int64_t>(std::ceil(bucket_mib * 1024 * 1024));
  // One bucket at a time is open of each sort: experts or not, divided or not.
  struct Open {
    std::vector<const Parameter*> parameters;
    std::int64_t bytes = 0;
  };
  Open open[2][2];
  const auto& all = store.parameters();
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    const Parameter& parameter = **it;
    if (parameter.kind == ParameterKind::table || parameter.value.numel() == 0) continue;
    const bool divided = sharding != nullptr && sharding->divides(parameter);
    Open& bucket = open[parameter.kind == ParameterKind::expert][divided];
    bucket.parameters.push_back(&parameter);
    bucket.bytes += parameter.value.numel() * size_of(store.dtype());
    if (bucket.bytes < limit) continue;
    close(bucket.parameters);
    bucket = {};
  }
  for (const bool expert : {true, false}) {
    for (const bool divided : {true, false}) {
      if (!open[expert][divided].parameters.empty()) close(open[expert][divided].parameters);
    }
  }
}

void GradientReducer::close(const std::vector<const Parameter*>& parameters) {
  std::int64_t elements = 0;
  for (const Parameter* p : parameters) elements += padded(p->value, store_.dtype());
  Bucket bucket;
  bucket.group = parameters[0]->kind == ParameterKind::expert ? &expert_group_ : &dense_group_;
  bucket.flat = Tensor::zeros({elements}, store_.dtype(), store_.device());
  bucket.parameters = parameters;
  std::int64_t at = 0;
  for (const Parameter* p : parameters) {
    GradSlot& slot = p->slot();
    FULCRUM_CHECK(!slot.on_complete, "{}: its gradient is already watched", p->name);
    slot.grad = bucket.flat.slice(at, at + p->value.numel()).reshape(p->value.shape());
    slot.fresh = true;
    slot.on_complete = [this, index = places_.size()] { complete(index); };
    places_.push_back({p, buckets_.size(), false});
    at += padded(p->value, store_.dtype());
    const auto* rows = sharding_ != nullptr ? sharding_->rows(*p) : nullptr;
    if (rows != nullptr) bucket.divided.push_back({slot.grad, *rows});
  }
  buckets_.push_back(std::move(bucket));
}

GradientReducer::~GradientReducer() {
  for (const Place& place : places_) {
    place.parameter->slot().on_complete = nullptr;
    place.parameter->slot().grad = {};
  }
}

void GradientReducer::begin_step() {
  store_.zero_gradients();
  armed_ = false;
  next_ = 0;
  for (Place& place : places_) place.complete = false;
  for (Bucket& bucket : buckets_) bucket.incomplete = bucket.parameters.size();
}

void GradientReducer::arm() { armed_ = true; }

void GradientReducer::complete(std::size_t parameter) {
  if (!armed_) return;
  Place& place = places_[parameter];
  FULCRUM_CHECK(!place.complete, "{} got another gradient after its sum over the ranks had begun",
                place.parameter->name);
  place.complete = true;
  if (--buckets_[place.bucket].incomplete == 0) send_complete();
}

void GradientReducer::send_complete() {
  while (next_ < buckets_.size() && buckets_[next_].incomplete == 0) send(buckets_[next_++]);
}

void GradientReducer::send(Bucket& bucket) {
  for (const Parameter* p : bucket.parameters) {
    GradSlot& slot = p->slot();
    if (slot.fresh) slot.grad.zero();
    slot.fresh = false;
  }
  bucket.request = bucket.divided.empty() ? bucket.group->all_reduce_async(bucket.flat)
                                          : bucket.group->reduce_scatter_async(bucket.divided);
  follow(bucket.request);
}

void GradientReducer::finish() {
  while (next_ < buckets_.size()) send(buckets_[next_++]);
  armed_ = false;
  const auto start = std::chrono::steady_clock::now();
  for (Bucket& bucket : buckets_) bucket.request.wait();
  exposed_seconds_ =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::int64_t GradientReducer::bytes() const {
  std::int64_t total = 0;
  for (const Bucket& bucket : buckets_) total += bucket.flat.bytes();
  return total;
}

}  // namespace fulcrum::parallel
