#include "apps/train/config_parser.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "framework/config/load.h"
#include "models/config_parser.h"

namespace fulcrum::apps {
namespace {

using config::above;
using config::at_least;
using config::between;
using config::Section;

constexpr config::Range kDecay{.min = 0, .max = 1, .open_max = true};

void bind_optimizer(Section& s, OptimizerConfig& optimizer) {
  s.choice("kind", optimizer.kind,
           {{"adamw", OptimizerKind::adamw}, {"muon", OptimizerKind::muon}});
  s.optional("lr", optimizer.lr, above(0));
  s.optional("beta1", optimizer.beta1, kDecay);
  s.optional("beta2", optimizer.beta2, kDecay);
  s.optional("eps", optimizer.eps, above(0));
  s.optional("weight_decay", optimizer.weight_decay, at_least(0));
  s.choice("moments", optimizer.moments, {{"f32", DType::f32}, {"bf16", DType::bf16}});
  s.optional("clip_norm", optimizer.clip_norm, at_least(0));
  s.section("muon", [&](Section& m) {
    m.optional("momentum", optimizer.muon.momentum, kDecay);
    m.optional("nesterov", optimizer.muon.nesterov);
    m.optional("iterations", optimizer.muon.iterations, between(1, 100));
    m.optional("update_rms", optimizer.muon.update_rms, above(0));
  });
  s.section("table", [&](Section& t) {
    t.optional("lr_multiplier", optimizer.table.lr_multiplier, at_least(0));
    t.optional("weight_decay", optimizer.table.weight_decay, at_least(0));
    t.optional("beta1", optimizer.table.beta1, kDecay);
    t.optional("beta2", optimizer.table.beta2, kDecay);
    t.optional("eps", optimizer.table.eps, above(0));
  });
}

void bind_schedule(Section& s, ScheduleConfig& schedule) {
  s.choice("kind", schedule.kind,
           {{"constant", ScheduleKind::constant},
            {"step", ScheduleKind::step},
            {"cosine", ScheduleKind::cosine},
            {"wsd", ScheduleKind::wsd}});
  s.optional("warmup_steps", schedule.warmup_steps, at_least(0));
  s.optional("final_fraction", schedule.final_fraction, between(0, 1));
  s.optional("decay_fraction", schedule.decay_fraction, between(0, 1));
  s.optional("milestones", schedule.milestones, between(0, 1));
  s.optional("gamma", schedule.gamma, above(0));
  s.close();
  const auto& steps = schedule.milestones;
  s.rule(std::adjacent_find(steps.begin(), steps.end(), std::greater_equal<>()) == steps.end(),
         "milestones", fmt::format("must be ascending; found {}", steps));
}

void bind_train(Section& s, TrainConfig& train) {
  s.required("steps", train.steps, at_least(1));
  s.required("sequence_length", train.sequence_length, at_least(1));
  s.required("global_batch", train.global_batch, at_least(1));
  s.optional("micro_batch", train.micro_batch, at_least(0));
  s.optional("seed", train.seed);
  s.choice("precision", train.precision,
           {{"auto", Precision::automatic}, {"f32", Precision::f32}, {"bf16", Precision::bf16}});
  s.choice("recompute", train.recompute,
           {{"none", Recompute::none},
            {"selective", Recompute::selective},
            {"full", Recompute::full}});
  s.optional("deterministic", train.deterministic);
  s.optional("cuda_graph", train.cuda_graph);
  s.optional("z_loss", train.z_loss, at_least(0));
  s.optional("log_every", train.log_every, at_least(1));
  s.section("optimizer", [&](Section& o) { bind_optimizer(o, train.optimizer); });
  s.section("schedule", [&](Section& o) { bind_schedule(o, train.schedule); });
  s.section("validation", [&](Section& v) {
    v.optional("every", train.validation.every, at_least(0));
    v.optional("batches", train.validation.batches, at_least(0));
  });
  s.section("guard", [&](Section& g) {
    g.optional("skip_nonfinite", train.guard.skip_nonfinite);
    g.optional("spike_sigma", train.guard.spike_sigma, at_least(0));
    g.optional("max_skips", train.guard.max_skips, at_least(1));
  });
  s.close();
  s.rule(
      train.micro_batch == 0 || train.global_batch % train.micro_batch == 0, "micro_batch",
      fmt::format("must divide global_batch {}; found {}", train.global_batch, train.micro_batch));
  s.rule(
      train.schedule.warmup_steps <= train.steps, "schedule.warmup_steps",
      fmt::format("must be at most steps {}; found {}", train.steps, train.schedule.warmup_steps));
}

}  // namespace

void bind(Section& s, ExperimentConfig& experiment) {
  s.optional("run_dir", experiment.run_dir);
  s.choice("device", experiment.device,
           {{"auto", DeviceChoice::automatic},
            {"cpu", DeviceChoice::cpu},
            {"cuda", DeviceChoice::cuda}});
  s.optional("threads", experiment.threads, between(0, 4096));
  s.section("model", [&](Section& m) { models::bind(m, experiment.model); });
  s.section("data", [&](Section& d) { d.optional("path", experiment.data.path); });
  s.section("train", [&](Section& t) { bind_train(t, experiment.train); });
  s.section("checkpoint", [&](Section& c) {
    c.optional("every", experiment.checkpoint.every, at_least(0));
    c.optional("every_minutes", experiment.checkpoint.every_minutes, at_least(0));
    c.optional("keep", experiment.checkpoint.keep, at_least(1));
  });
  s.section("parallel", [&](Section& p) {
    p.optional("pipeline", experiment.parallel.pipeline, at_least(1));
    p.optional("expert", experiment.parallel.expert, at_least(1));
    p.choice("zero", experiment.parallel.zero,
             {{"auto", ZeroStage::automatic}, {"0", ZeroStage::none}, {"1", ZeroStage::optimizer}});
    p.optional("bucket_mib", experiment.parallel.bucket_mib, above(0));
    p.optional("hang_timeout_s", experiment.parallel.hang_timeout_s, above(0));
  });
  s.close();
  s.rule(experiment.parallel.pipeline <= experiment.model.layers, "parallel.pipeline",
         fmt::format("must be at most model.layers {}; found {}", experiment.model.layers,
                     experiment.parallel.pipeline));
  s.rule(
      experiment.parallel.expert == 1 || experiment.model.moe.experts > 0, "parallel.expert",
      fmt::format("needs experts: model.moe.experts is 0; found {}", experiment.parallel.expert));
}

ExperimentConfig parse_experiment(const config::Value& root) {
  return config::read<ExperimentConfig>(root, [](Section& s, ExperimentConfig& e) { bind(s, e); });
}

ExperimentConfig load_experiment(const std::filesystem::path& path,
                                 const std::vector<std::string>& overrides) {
  return parse_experiment(config::load(path, overrides));
}

std::string to_yaml(const ExperimentConfig& experiment) {
  return config::emit_yaml(
      config::write(experiment, [](Section& s, ExperimentConfig& e) { bind(s, e); }));
}

std::string config_hash(const ExperimentConfig& experiment) {
  ExperimentConfig placeless = experiment;
  placeless.run_dir.clear();
  placeless.threads = 0;
  return config::hash_text(to_yaml(placeless));
}

}  // namespace fulcrum::apps
