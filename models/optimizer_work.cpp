#include "models/optimizer_work.h"

#include <algorithm>

#include "models/parameter_list.h"

namespace fulcrum::models {
namespace {

// Bytes of an element that cross memory, in f32.
constexpr double kNormBytes = 4;     // gradient
constexpr double kAdamWBytes = 28;   // gradient, weight and two moments; all but the first written
constexpr double kMomentPasses = 4;  // two moments, each read and written
constexpr double kMuonBytes = 20;    // gradient, weight and momentum; the same
constexpr double kRoundedBytes = 2;  // of a bf16 value beside its master
// Of a table's row: its id, and its count of steps, read and written.
constexpr double kRowBytes = 16;

// Of one matrix.
double newton_schulz_flops(double rows, double cols, std::int64_t iterations) {
  const double small = std::min(rows, cols);
  return static_cast<double>(iterations) * (4 * small * rows * cols + 2 * small * small * small);
}

bool ends_with(const std::string& name, const std::string& end) {
  return name.size() >= end.size() && name.compare(name.size() - end.size(), end.size(), end) == 0;
}

// Of all matrices that a parameter is made of (Parameter::parts, and experts).
double newton_schulz_flops(const CountedTensor& t, const ModelConfig& model,
                           std::int64_t iterations) {
  const auto cols = static_cast<double>(t.shape[-1]);
  const auto rows = static_cast<double>(t.shape[-2]);
  const double stacked = static_cast<double>(t.numel()) / (rows * cols);
  if (ends_with(t.name, "gate_up.weight")) {
    return 2 * stacked * newton_schulz_flops(rows / 2, cols, iterations);
  }
  if (!ends_with(t.name, "qkv.weight")) {
    return stacked * newton_schulz_flops(rows, cols, iterations);
  }
  const auto keys = static_cast<double>(model.attention.kv_heads * model.attention.head_dim);
  return newton_schulz_flops(rows - 2 * keys, cols, iterations) +
         2 * newton_schulz_flops(keys, cols, iterations);
}

}  // namespace

std::vector<OperatorWork> optimizer_work(const ModelConfig& model, const StepShape& shape) {
  OperatorWork norm{Region::optimizer, "gradient norm"};
  OperatorWork adamw{Region::optimizer, "adamw"};
  OperatorWork muon{Region::optimizer, "muon"};
  OperatorWork rows{Region::optimizer, "row_adam"};
  const double share = 1 / static_cast<double>(shape.optimizer_ranks);
  for (const CountedTensor& t : list_parameters(model)) {
    if (t.kind == ParameterKind::table) continue;
    const double elements = share * static_cast<double>(t.numel());
    const bool matrix = t.kind == ParameterKind::matrix || t.kind == ParameterKind::expert;
    const bool in_products = t.kind != ParameterKind::vector && t.kind != ParameterKind::router;
    const double value = shape.element == 2 && in_products ? kRoundedBytes : 0;
    const double saved =
        in_products ? kMomentPasses * static_cast<double>(4 - shape.moment) : 0;  // of AdamW's
    norm.bytes += kNormBytes * elements;
    if (matrix && shape.newton_schulz > 0) {
      muon.flops += share * newton_schulz_flops(t, model, shape.newton_schulz);
      muon.bytes += (kMuonBytes + value) * elements;
    } else {
      adamw.bytes += (kAdamWBytes + value - saved) * elements;
    }
  }
  if (model.dse) {
    const auto width = static_cast<double>(model.dse->row_width());
    norm.bytes += kNormBytes * width * shape.touched_rows;
    rows.bytes += (kAdamWBytes * width + kRowBytes) * shape.touched_rows;
  }
  return {norm, adamw, muon, rows};
}

}  // namespace fulcrum::models
