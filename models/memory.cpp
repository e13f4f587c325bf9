#include "models/memory.h"

#include <algorithm>

#include "framework/ops/dse_gate.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/short_convolution.h"

namespace fulcrum::models {
namespace {

Tensor mean(const Tensor& x) {
  return ops::scale(ops::sum(x), 1.0 / static_cast<double>(std::max<std::int64_t>(x.numel(), 1)));
}

}  // namespace

std::vector<ops::NgramHash> make_hashes(const DseConfig& config, std::int64_t hashed_vocabulary) {
  ops::NgramHashOptions options;
  options.orders = config.orders;
  options.heads = config.heads;
  options.rows_per_head = config.rows_per_head;
  options.vocabulary = hashed_vocabulary;
  options.seed = config.hash_seed;
  return ops::make_ngram_hashes(options, config.layers);
}

Memory::Memory(ParameterStore& store, const std::string& name, const ModelConfig& config,
               const ops::NgramHash& hash, const HashedVocabulary& vocabulary,
               const parallel::Communicator& data_ranks)
    : config_(*config.dse),
      eps_(config.norm_eps),
      hash_(hash),
      in_place_(store.device().is_cuda() && data_ranks.alone()),
      vocabulary_{in_place_ ? vocabulary.map.to(store.device()) : vocabulary.map, vocabulary.size,
                  vocabulary.pad},
      table_(&store.create(name + ".table.weight", ParameterKind::table,
                           {hash.rows(), config_.row_width()},
                           Initializer::normal(config_.table_std))),
      exchange_(data_ranks, *table_),
      key_(store, name + ".key", config_.width, config.width, config.init_std),
      value_(store, name + ".value", config_.width, config.width, config.init_std),
      hidden_norm_(store, name + ".hidden_norm", config.width, config.norm_eps),
      key_norm_(store, name + ".key_norm", config.width, config.norm_eps),
      upload_(store.device()) {
  if (config_.bias) {
    key_bias_ = &store.create(name + ".key.bias", ParameterKind::vector, {config.width},
                              Initializer::zeros());
    value_bias_ = &store.create(name + ".value.bias", ParameterKind::vector, {config.width},
                                Initializer::zeros());
  }
  if (config_.convolution_kernel > 0) {
    convolution_norm_.emplace(store, name + ".convolution_norm", config.width, config.norm_eps);
    convolution_ =
        &store.create(name + ".convolution.weight", ParameterKind::vector,
                      {config.width, config_.convolution_kernel},
                      config_.convolution_zero_init ? Initializer::zeros()
                                                    : Initializer::normal(config.init_std));
  }
}

Tensor Memory::document_start(const data::Batch& batch) const {
  return config_.boundary == BoundaryPolicy::document ? batch.document_start : Tensor();
}

Tensor Memory::hash(const data::Batch& batch) const {
  return ops::ngram_rows(batch.ids, document_start(batch), hash_, vocabulary_.pad, vocabulary_.map);
}

Memory::Asked Memory::ask(const data::Batch& host) {
  const Tensor index = hash(host);
  const ops::UniqueRows rows = ops::unique_rows(index);
  return {host.ids, rows.index.reshape(index.shape()), exchange_.begin(rows.unique)};
}

void Memory::announce(const data::Batch& host) {
  if (!in_place_) announced_.push_back(ask(host));
}

void Memory::prepare(const ForwardPass& pass) {
  if (in_place_) {
    index_ = hash(pass.batch);
    return;
  }
  const data::Batch& host = pass.host_batch != nullptr ? *pass.host_batch : pass.batch;
  FULCRUM_CHECK(host.ids.device().is_cpu(), "shared tables need the batch on the host");
  const auto known = std::find_if(announced_.begin(), announced_.end(),
                                  [&](const Asked& a) { return a.ids.raw() == host.ids.raw(); });
  Asked asked;
  if (known == announced_.end()) {
    asked = ask(host);
  } else {
    asked = std::move(*known);
    announced_.erase(known);
  }
  index_ = upload_(asked.index);
  request_ = std::move(asked.request);
}

void Memory::prefetch() {
  if (!in_place_) exchange_.prefetch(request_);
}

Tensor Memory::read(DType dtype) {
  if (in_place_) return ops::read_table(table_->value, index_, dtype);
  return ops::take_rows(parallel::fetch_rows(exchange_, request_), index_, dtype);
}

Tensor Memory::forward(const Tensor& hidden, const Tensor& memory, ForwardPass& pass) {
  const Shape shape = hidden.shape();  // [batch, sequence, width]
  Tensor key = key_(memory);
  Tensor value = value_(memory);
  if (config_.bias) {
    key = ops::add_bias(key, key_bias_->value);
    value = ops::add_bias(value, value_bias_->value);
  }

  const ops::GatedValue gated =
      ops::dse_gate(hidden.reshape({-1, shape[2]}), key, value, hidden_norm_.weight(),
                    key_norm_.weight(), eps_, config_.signed_sqrt);
  pass.gate_means.push_back(mean(gated.gate));
  const Tensor update = gated.value.reshape(shape);
  if (convolution_ == nullptr) return update;
  // Dilated by the longest n-gram, so that neighbouring taps see n-grams without a common token.
  return ops::short_convolution(update, convolution_norm_->weight(), convolution_->value,
                                config_.orders.back(), eps_, document_start(pass.batch),
                                gated.square_means);
}

}  // namespace fulcrum::models
