// What an n-gram memory adds to a step, at the sizes of the small model of the ρ sweep and of one
// like DSE-27B: addresses, rows, gate, convolution, and the way of the rows' gradients into the
// table.

#include <algorithm>
#include <cmath>

#include "apps/bench/case.h"
#include "apps/bench/inputs.h"
#include "framework/core/philox.h"
#include "framework/ops/dse_gate.h"
#include "framework/ops/ngram.h"
#include "framework/ops/short_convolution.h"
#include "framework/ops/table.h"
#include "framework/optim/clipping.h"
#include "framework/optim/row_adam.h"

namespace fulcrum::apps {
namespace {

using Tensors = std::vector<Tensor>;

struct Sizes {
  std::int64_t tokens, sequence, width;
  std::int64_t row_width, rows_per_head;
};

constexpr std::int64_t kHeads = 8;  // of each of two orders
constexpr std::int64_t kVocabulary = 16384;
// Steps that a case takes, with different tokens, so that the cache does not hold their rows.
constexpr std::uint64_t kSteps = 4;

std::string text(std::initializer_list<std::int64_t> sizes) {
  std::string out;
  for (const std::int64_t n : sizes) out += (out.empty() ? "" : " x ") + std::to_string(n);
  return out;
}

// Token ids as unevenly spread as those of text.
Tensor text_like_ids(const Shape& shape, Device device, std::uint64_t seed) {
  const Tensor host = Tensor::empty(shape, DType::i32);
  const Random random(seed, stream_of("bench text"));
  for (std::int64_t i = 0; i < host.numel(); ++i) {
    // log-uniform ranks: frequencies follow Zipf's law
    const double u = random.uniform(static_cast<std::uint64_t>(i));
    host.data<std::int32_t>()[i] = static_cast<std::int32_t>(
        std::min(std::exp(u * std::log(static_cast<double>(kVocabulary))), kVocabulary - 1.0));
  }
  return host.to(device);
}

// A memory's table, the rows that steps read of it, and gradients of them.
struct Rows {
  Sizes sizes;
  Device device;
  DType dtype;
  ops::NgramHash hash;
  Tensors ids, rows, values;
  std::vector<SparseRows> merged;
  ParameterStore store;
  Parameter* table;
  std::unique_ptr<RowAdam> optimizer;
  double read = 0.0;     // rows in all steps
  double touched = 0.0;  // different ones of a step, in all steps

  Rows(const Sizes& s, Device where, DType activations)
      : sizes(s), device(where), dtype(activations), store(1, {DType::f32, where}) {
    ops::NgramHashOptions options;
    options.heads = kHeads;
    options.rows_per_head = {s.rows_per_head};
    options.vocabulary = kVocabulary;
    hash = ops::make_ngram_hashes(options, {0})[0];
    table = &store.create("table", ParameterKind::table, {hash.rows(), s.row_width},
                          Initializer::normal(0.02));
    optimizer = std::make_unique<RowAdam>(std::vector{table}, RowAdamOptions{});
    for (std::uint64_t step = 0; step < kSteps; ++step) {
      ids.push_back(text_like_ids({s.tokens / s.sequence, s.sequence}, device, step));
      rows.push_back(ops::ngram_rows(ids.back(), {}, hash, 0));
      values.push_back(
          random_values({rows.back().numel(), s.row_width}, dtype, device, 10 + step, 1e-3));
      merged.push_back(gradient(step));
      ops::merge_in_place(merged.back(), hash.rows());
      read += static_cast<double>(rows.back().numel());
      touched += ops::merged_count(merged.back(), device).item();
    }
  }
  SparseRows gradient(std::uint64_t step) const {
    return {{rows[step].reshape({rows[step].numel()})}, {values[step]}, {}};
  }
  double width() const { return static_cast<double>(sizes.row_width); }
};

std::vector<BenchCase> row_cases(const Sizes& sizes, Device device, DType dtype) {
  const auto held = std::make_shared<Rows>(sizes, device, dtype);
  const double row = 4.0 * held->width();
  const double value = static_cast<double>(size_of(dtype)) * held->width();
  const std::string shape = text(
      {static_cast<std::int64_t>(kSteps), sizes.tokens, held->hash.columns(), sizes.row_width});
  const auto every_step = [held](auto work) {
    return [held, work](const Tensors&) {
      for (std::uint64_t step = 0; step < kSteps; ++step) work(*held, step);
      return Tensors{};
    };
  };
  const double positions = static_cast<double>(kSteps) * static_cast<double>(sizes.tokens);
  return {
      {"ngram_rows",
       shape,
       {},
       every_step([](Rows& h, std::uint64_t step) { ops::ngram_rows(h.ids[step], {}, h.hash, 0); }),
       {0.0, 4.0 * positions + 8.0 * held->read},
       {}},
      {"read_table",
       shape,
       {},
       every_step([](Rows& h, std::uint64_t step) {
         ops::read_table(h.table->value, h.rows[step], h.dtype);
       }),
       {0.0, held->read * (8.0 + row + value)},
       {}},
      // The sort is on top of what must move.
      {"merge_sparse",
       shape,
       {},
       every_step(
           [](Rows& h, std::uint64_t step) { ops::merge_sparse(h.gradient(step), h.hash.rows()); }),
       {0.0, held->read * (8.0 + value) + held->touched * (8.0 + row)},
       {}},
      {"row_adam",
       shape,
       {},
       every_step([](Rows& h, std::uint64_t step) {
         h.table->slot().sparse = h.merged[step];
         h.optimizer->step(1e-4, 0.5);
       }),
       {0.0, held->touched * (8.0 + 8.0 + 7.0 * row)},
       {}}};
}

std::vector<BenchCase> gate_cases(const Sizes& s, Device device, DType dtype) {
  const Shape flat = {s.tokens, s.width};
  const double row = static_cast<double>(size_of(dtype)) * static_cast<double>(s.tokens * s.width);
  const auto activation = [&](const Shape& shape, std::uint64_t seed) {
    return BenchInput{random_values(shape, dtype, device, seed), BenchInput::Kind::activation};
  };
  const auto vector = [&](const Shape& shape, std::uint64_t seed) {
    return BenchInput{random_values(shape, DType::f32, device, seed), BenchInput::Kind::parameter};
  };
  const BenchInput known = {Tensor::full({s.tokens}, 1.0, DType::f32, device),
                            BenchInput::Kind::constant};
  return {{"dse_gate",
           text({s.tokens, s.width}),
           {activation(flat, 1), activation(flat, 2), activation(flat, 3), vector({s.width}, 4),
            vector({s.width}, 5)},
           [](const Tensors& x) {
             return Tensors{ops::dse_gate(x[0], x[1], x[2], x[3], x[4], 1e-6, true).value};
           },
           {0.0, 4.0 * row},
           {0.0, 7.0 * row}},
          {"short_convolution",
           text({s.tokens, s.width}),
           {activation({s.tokens / s.sequence, s.sequence, s.width}, 6), vector({s.width}, 7),
            vector({s.width, 4}, 8), known},
           [](const Tensors& x) {
             return Tensors{ops::short_convolution(x[0], x[1], x[2], 3, 1e-6, {}, x[3])};
           },
           {0.0, 2.0 * row},
           {0.0, 3.0 * row}}};
}

}  // namespace

std::vector<BenchGroup> memory_groups(Device device, DType dtype) {
  const std::vector<Sizes> all =
      device.is_cpu()
          ? std::vector<Sizes>{{2048, 256, 384, 16, 20000}}
          : std::vector<Sizes>{{32768, 512, 384, 16, 125000}, {16384, 4096, 2560, 80, 125000}};
  std::vector<BenchGroup> groups;
  for (const Sizes& sizes : all) {
    groups.push_back({"memory", [=] { return row_cases(sizes, device, dtype); }});
    groups.push_back({"memory", [=] { return gate_cases(sizes, device, dtype); }});
  }
  return groups;
}

}  // namespace fulcrum::apps
