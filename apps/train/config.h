#pragma once
// One experiment: the YAML file of `fulcrum train`, as plain values. Members are the keys, in YAML
// under their own names, and what they are set to is the default; `automatic` is written `auto`.
// `model:` stands in models/config.h.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "framework/autograd/recompute.h"
#include "framework/core/dtype.h"
#include "models/config.h"

namespace fulcrum::apps {

enum class DeviceChoice : std::uint8_t { automatic, cpu, cuda };
enum class Precision : std::uint8_t { automatic, f32, bf16 };
enum class OptimizerKind : std::uint8_t { adamw, muon };
enum class ZeroStage : std::uint8_t { automatic, none, optimizer };
enum class ScheduleKind : std::uint8_t { constant, step, cosine, wsd };

struct DataConfig {
  std::string path;  // folder made by `fulcrum prepare`
};

struct OptimizerConfig {
  OptimizerKind kind =
      OptimizerKind::adamw;  // of the backbone's matrices; vectors, embedding and head use AdamW
  double lr = 1e-3;          // at the schedule's peak
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;  // of AdamW
  double weight_decay = 0.1;  // of all but vectors (norm scales, convolutions) and tables
  // What AdamW keeps its moments of matrices, experts, embedding and head in: f32, or bf16, which
  // saves 4 of 12 bytes of state (with the f32 master) and 8 of the 30 that a step moves
  // (framework/optim/adamw.h). Those of vectors and routers, Muon's momentum and the moments of
  // tables are f32. A run may resume from a checkpoint of the other kind, rounded or widened.
  DType moments = DType::f32;
  double clip_norm = 1.0;  // global norm over every kind of parameter; 0: off
  struct Muon {            // framework/optim/muon.h
    double momentum = 0.95;
    bool nesterov = true;
    std::int64_t iterations = 5;  // of Newton–Schulz
    double update_rms = 0.18;     // size of an update relative to lr
  } muon;
  struct Table {                 // the memories' tables: Adam of the rows that a step used
    double lr_multiplier = 5.0;  // of lr
    double weight_decay = 0.0;
    double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  } table;
};

struct ScheduleConfig {  // framework/optim/schedule.h has the formulas
  ScheduleKind kind = ScheduleKind::cosine;
  std::int64_t warmup_steps = 0;                // a line from near zero to the peak
  double final_fraction = 0.1;                  // of the peak, at the end (cosine, wsd)
  double decay_fraction = 0.2;                  // of the steps (wsd)
  std::vector<double> milestones = {0.8, 0.9};  // of the steps (step)
  double gamma = 0.316;                         // factor at each milestone (step)
};

struct ValidationConfig {
  std::int64_t every = 0;    // steps; 0: only at the end
  std::int64_t batches = 0;  // global batches; 0: the whole validation split
};

struct GuardConfig {
  bool skip_nonfinite = true;  // steps whose loss or gradient norm is not finite change nothing
  // Skip a step whose gradient norm lies this many deviations above the running mean; 0: off.
  double spike_sigma = 0.0;
  std::int64_t max_skips = 10;  // in a row, then the run ends with an error
};

struct TrainConfig {
  std::int64_t steps = 0;            // of the optimizer; required, as the next two
  std::int64_t sequence_length = 0;  // tokens
  std::int64_t global_batch = 0;     // sequences a step, of all ranks
  std::int64_t micro_batch = 0;  // sequences a rank computes at once; 0: global_batch / data ranks
  std::uint64_t seed = 0;        // of the initial values and of the data's order
  // Of matrix products and, on a GPU, of activations; masters, gradients and optimizer are f32.
  // automatic: bf16 on a GPU, f32 on a CPU.
  Precision precision = Precision::automatic;
  // What backward computes again instead of keeping it (none, selective, full: framework/autograd/
  // recompute.h); the numbers stay the same.
  Recompute recompute = Recompute::none;
  // On a GPU: whether the same seed and mesh give the same bits. Without it cuDNN's attention adds
  // up its gradients in any order, which is faster.
  bool deterministic = true;
  bool cuda_graph = true;  // capture the computation of a step and replay it (GPU)
  double z_loss = 0.0;     // times the mean square of the log-sum-exp of the output logits; 0: off
  std::int64_t log_every = 10;  // steps between lines on the terminal; the logs have every step
  OptimizerConfig optimizer;
  ScheduleConfig schedule;
  ValidationConfig validation;
  GuardConfig guard;
};

struct CheckpointConfig {
  std::int64_t every = 0;      // steps; 0: only at the end and on a signal
  double every_minutes = 0.0;  // of wall time by rank 0's clock; 0: off
  std::int64_t keep = 3;       // newest checkpoints that stay
};

struct ParallelConfig {
  // Stages of layers, and ranks that share a layer's experts: `plan` counts with them, training
  // takes 1 yet.
  std::int64_t pipeline = 1;
  std::int64_t expert = 1;
  // Whether data ranks divide the optimizer's work, its state and the f32 masters
  // (parallel/optimizer_sharding.h): "0" no, "1" yes. "auto": where several ranks train on GPUs,
  // whose memory is scarce and whose links are fast; on CPUs ranks of a host share the memory, and
  // updates are a small part of a step. Numbers differ by rounding only.
  ZeroStage zero = ZeroStage::automatic;
  double bucket_mib = 16.0;       // of gradients that are reduced at once
  double hang_timeout_s = 600.0;  // a collective that takes longer is reported and ends the run
};

struct ExperimentConfig {
  std::string run_dir;  // where logs and checkpoints go
  DeviceChoice device = DeviceChoice::automatic;
  int threads = 0;  // per rank; 0: cores of the host / ranks on it
  models::ModelConfig model;
  DataConfig data;
  TrainConfig train;
  CheckpointConfig checkpoint;
  ParallelConfig parallel;
};

}  // namespace fulcrum::apps
