#pragma once
// Parameters: named, with a global shape, of which this rank may hold a shard of rows.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "framework/core/tensor.h"

namespace fulcrum {

// What a parameter is, which decides how it is optimised, counted and sharded.
enum class ParameterKind : std::uint8_t {
  embedding,  // token embedding [vocabulary, width]
  head,       // output projection [vocabulary, width]
  matrix,     // any other dense matrix of the backbone
  router,     // expert centroids [experts, width]
  expert,     // stacked expert matrices [experts, …, …]; one matrix per leading index
  vector,     // norm scales, gates, convolutions: no weight decay, never Muon
  table,      // n-gram memory rows [rows, row width]; sparse gradients
};

const char* name_of(ParameterKind kind);

struct Initializer {
  enum class Kind : std::uint8_t { zero, one, normal } kind = Kind::zero;
  double std = 0.0;
  static Initializer zeros() { return {Kind::zero, 0.0}; }
  static Initializer ones() { return {Kind::one, 0.0}; }
  static Initializer normal(double std) { return {Kind::normal, std}; }
};

// Rows first..first+count of a leading dimension.
struct RowRange {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

struct Parameter {
  std::string name;  // stable and global: "blocks.3.attention.query.weight"
  ParameterKind kind = ParameterKind::matrix;
  Shape global_shape;
  RowRange shard;  // rows of the leading dimension held here; all of them unless sharded
  // Rows of the matrices that are stacked in one, such as query, key and value, for optimizers that
  // treat each apart: they add up to the last dimension but one. Empty: a single matrix.
  std::vector<std::int64_t> parts;
  Tensor value;  // [shard.count, …], a leaf of the tape: what operators read
  // What the optimizer updates and checkpoints hold. The same tensor as value, or, when value is
  // its rounding to bf16, f32 values: of all its rows, or of the rows master_rows (counted in
  // value) when data ranks divide the optimizer's work.
  Tensor master;
  RowRange master_rows;

  bool rounded() const { return value.dtype() == DType::bf16; }

  bool sharded() const { return shard.count != global_shape[0]; }
  GradSlot& slot() const { return *value.slot(); }

  // The dense gradient of the rows of master, in its shape and dtype; undefined when the parameter
  // got none: then it counts as zero.
  Tensor gradient() const;
  // Rounds master to its rows of value, after master has changed.
  void round() const;
};

// Values that are saved with the model but not trained by gradients: router biases, counters.
struct Buffer {
  std::string name;
  Tensor value;
};

// Owns the parameters of one rank's part of a model, in creation order (the same on every rank of
// the same stage).
class ParameterStore {
 public:
  // Which rows of a parameter this rank holds; all of them by default. Experts and tables are
  // sharded by the mesh.
  using ShardPolicy = std::function<RowRange(ParameterKind kind, std::int64_t rows)>;

  // Where parameters live and what they are. f32 or f64 (gradient checks) hold every value as it
  // is; bf16 rounds matrices, experts, embedding and head for computing and keeps f32 masters,
  // while routers, vectors and tables stay f32.
  struct Placement {
    DType dtype = DType::f32;
    Device device;
  };

  // Initial values depend on seed, name and global index only.
  ParameterStore(std::uint64_t seed, Placement placement, ShardPolicy policy = {});
  ParameterStore(std::uint64_t seed, DType dtype, ShardPolicy policy = {})
      : ParameterStore(seed, Placement{dtype, Device{}}, std::move(policy)) {}

  // parts as in Parameter.
  Parameter& create(const std::string& name, ParameterKind kind, const Shape& global_shape,
                    Initializer initializer, std::vector<std::int64_t> parts = {});
  Buffer& create_buffer(const std::string& name, const Tensor& value);

  const std::vector<std::unique_ptr<Parameter>>& parameters() const { return parameters_; }
  const std::vector<std::unique_ptr<Buffer>>& buffers() const { return buffers_; }
  // Throws InternalError when there is none of that name.
  Parameter& find(const std::string& name) const;
  std::uint64_t seed() const { return seed_; }
  Device device() const { return placement_.device; }
  // Of masters and gradients.
  DType dtype() const { return placement_.dtype == DType::bf16 ? DType::f32 : placement_.dtype; }
  // Of activations.
  DType compute_dtype() const { return placement_.dtype; }

  // Before the first backward of a step: the next contribution to each gradient overwrites it.
  void zero_gradients() const;

 private:
  std::uint64_t seed_;
  Placement placement_;
  ShardPolicy policy_;
  std::vector<std::unique_ptr<Parameter>> parameters_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

}  // namespace fulcrum
