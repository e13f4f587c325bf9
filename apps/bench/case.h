#pragma once
// What `fulcrum bench` times: work beside the floor below which no implementation can go.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "framework/core/dtype.h"
#include "framework/core/tensor.h"

namespace fulcrum::apps {

// The ceilings of a device, measured when the bench begins.
struct Ceilings {
  double flops = 0.0;  // of a product of square matrices, 8192 wide on a GPU, 1024 on a CPU
  double bytes = 0.0;  // read and written by a copy, per second
};
Ceilings measure_ceilings(Device device, DType dtype);

// What one direction must do: floating-point operations, and bytes with each input read once and
// each output written once.
struct Work {
  double flops = 0.0;
  double bytes = 0.0;
};

struct BenchInput {
  enum class Kind : std::uint8_t { activation, parameter, constant };
  Tensor value;
  Kind kind;  // an activation gets a gradient of its own dtype, a parameter one in f32
};

struct BenchCase {
  std::string name;   // "rms_norm"
  std::string shape;  // "16384 x 2048"
  std::vector<BenchInput> inputs;
  std::function<std::vector<Tensor>(const std::vector<Tensor>&)> forward;
  Work forward_work;
  Work backward_work;  // zero: not timed
};

struct BenchResult {
  std::string name, shape;  // name with " forward" or " backward"
  double seconds = 0.0;     // median
  Work work;
  double floor_seconds = 0.0;  // the larger of flops and bytes over their ceilings
};

// Times both directions. On a GPU each is captured as a graph, so that launches do not count.
std::vector<BenchResult> run_case(const BenchCase& bench, Device device, const Ceilings& ceilings);

// One line for a result, and the header above it.
std::string result_header();
std::string result_line(const BenchResult& result);

// Cases that share inputs, made when their turn comes, so that groups do not hold memory together.
struct BenchGroup {
  std::string name;
  std::function<std::vector<BenchCase>()> make;
};
// The operators at the sizes of configs/bench's models on that kind of device.
std::vector<BenchGroup> operator_groups(Device device, DType dtype);
std::vector<BenchGroup> optimizer_groups(Device device, DType dtype);
// Dense operators that those contain, and plain arithmetic.
std::vector<BenchGroup> dense_groups(Device device, DType dtype);
// Those of an n-gram memory.
std::vector<BenchGroup> memory_groups(Device device, DType dtype);

}  // namespace fulcrum::apps
