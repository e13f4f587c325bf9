#include "apps/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "apps/train/evaluator.h"
#include "data/tokenizer_compression.h"
#include "framework/core/memory_pool.h"
#include "framework/optim/clipping.h"

namespace fulcrum::apps {
namespace {

using telemetry::Phase;

constexpr std::size_t kRecentLosses =
    20;  // steps over which result.json averages the training loss

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Rank 0 holds the folder's lock. A folder with checkpoints is touched only to resume.
std::unique_ptr<RunFolder> open_folder(const ExperimentConfig& config, const parallel::Mesh& mesh,
                                       bool resume) {
  if (mesh.world().rank() != 0) return nullptr;
  auto folder = std::make_unique<RunFolder>(config.run_dir);
  if (!resume && holds_checkpoints(folder->file("checkpoints"))) {
    throw UserError(
        fmt::format("run folder {}: holds checkpoints of an earlier run; go on with --resume, or "
                    "choose another run_dir",
                    config.run_dir));
  }
  return folder;
}

data::Windows windows_of(const data::PreparedData& data, data::Split split,
                         const ExperimentConfig& config) {
  data::Windows windows(data.stream(split), config.train.sequence_length, data.vocabulary(),
                        data.manifest().tokenizer.pad);
  if (split == data::Split::train && windows.whole() == 0) {
    throw UserError(fmt::format(
        "{}: the {} tokens of the training split are too few for one sequence of "
        "train.sequence_length {} and the token after it",
        data.folder().string(), windows.stream().tokens(), config.train.sequence_length));
  }
  return windows;
}

models::HashedVocabulary hashed_vocabulary(const ExperimentConfig& config,
                                           const data::PreparedData& data) {
  if (!config.model.dse) return {};
  const data::TokenizerRecord& record = data.manifest().tokenizer;
  const std::int64_t pad_id = config.model.dse->pad_id < 0 ? record.pad : config.model.dse->pad_id;
  std::vector<std::int32_t> map(static_cast<std::size_t>(data.vocabulary()));
  std::iota(map.begin(), map.end(), 0);
  std::int64_t size = data.vocabulary();
  if (config.model.dse->compress_tokenizer) {
    const data::TokenizerCompression compression =
        data::compress_tokenizer(*data::load_tokenizer(data.folder(), record));
    map = compression.compressed;
    size = compression.size;
  }
  return {Tensor::from(map, {data.vocabulary()}), size, map.at(static_cast<std::size_t>(pad_id))};
}

}  // namespace

Trainer::Trainer(const ExperimentConfig& config, const std::string& config_hash,
                 const parallel::Mesh& mesh, const data::PreparedData& data,
                 ParameterStore::Placement placement, const Resume& resume)
    : config_(config),
      mesh_(mesh),
      batches_(
          parallel::plan_batch(mesh.shape(), config.train.global_batch, config.train.micro_batch)),
      folder_(open_folder(config, mesh, resume.wanted)),
      train_windows_(windows_of(data, data::Split::train, config)),
      valid_windows_(windows_of(data, data::Split::valid, config)),
      sampler_(train_windows_.whole(), config.train.global_batch, config.train.seed),
      schedule_(make_schedule(config.train)),
      state_(config, hashed_vocabulary(config, data), mesh, placement),
      identity_(identify(config, config_hash, data)),
      checkpoints_(config.run_dir + "/checkpoints", config.checkpoint.keep, mesh.world()),
      gradients_(config_, mesh, state_, timer_),
      optimizer_timer_(state_.store.device()),
      expert_load_(state_.store.device()) {
  if (!resume.checkpoint.empty() || checkpoints_.exist()) {
    checkpoints_.restore(state_, identity_, resume.checkpoint);
  }
  saved_step_ = state_.step;
  saved_at_ = state_.seconds;
  if (!is_root()) return;
  folder_->write("config.yaml", identity_.config);
  metrics_ = telemetry::Metrics(config.run_dir, state_.step + 1);  // steps are logged once done
  telemetry::ProgressOptions options;
  options.total_steps = config.train.steps;
  options.first_step = state_.step;
  options.log_every = config.train.log_every;
  options.terminal = telemetry::is_terminal(stdout);
  progress_ = std::make_unique<telemetry::Progress>(stdout, options);
  if (state_.step > 0) progress_->message(fmt::format("resumed at step {}", state_.step));
}

TrainResult Trainer::run() {
  std::vector<data::Batch> batches;
  if (state_.step < config_.train.steps) batches = load(state_.step);
  const std::int64_t first_step = state_.step;
  const std::int64_t state_bytes = memory_stats(state_.store.device()).in_use;
  while (state_.step < config_.train.steps) {
    const auto start = std::chrono::steady_clock::now();
    gradients_.start(batches);
    // A GPU is busy meanwhile.
    if (state_.step + 1 < config_.train.steps) {
      batches = load(state_.step + 1);
      if (state_.store.device().is_cuda()) {
        for (const data::Batch& batch : batches) state_.model.announce(batch);
      }
    }
    StepReport report = gradients_.finish(stop_.received());
    if (state_.store.device().is_cuda()) report.regions = device_seconds();
    apply(report);
    report.tokens = config_.train.global_batch * config_.train.sequence_length;
    report.seconds = seconds_since(start);
    ++state_.step;
    report.epoch = sampler_.epochs(state_.step);
    state_.tokens += report.tokens;
    state_.seconds += report.seconds;
    publish(report);

    const std::int64_t every = config_.train.validation.every;
    if (every > 0 && state_.step % every == 0 && state_.step < config_.train.steps) validate();

    const auto timed = timer_.time(Phase::checkpoint);
    note_save(checkpoints_.poll());
    if (save_is_due()) save();
    if (report.signal != 0) break;
  }
  if (saved_step_ != state_.step) save();
  note_save(checkpoints_.wait());

  TrainResult result;
  result.step = state_.step;
  result.finished = state_.step >= config_.train.steps;
  for (const double loss : state_.recent_losses) {
    result.train_loss += loss / static_cast<double>(state_.recent_losses.size());
  }
  if (result.finished) result.validation_loss = validate();
  result.memory = memory_use(state_bytes);
  if (result.finished) write_result(result, result.step > first_step);
  if (progress_) {
    const RankMemoryUse& memory = result.memory;
    progress_->message(fmt::format(
        "memory of a rank: {} in use at most (weights {}, gradients {}, optimizer {}, activations "
        "and buffers {}), {} reserved",
        telemetry::bytes_text(memory.peak), telemetry::bytes_text(memory.weights),
        telemetry::bytes_text(memory.gradients), telemetry::bytes_text(memory.optimizer),
        telemetry::bytes_text(memory.activations), telemetry::bytes_text(memory.reserved)));
    progress_->finish();
  }
  return result;
}

std::vector<data::Batch> Trainer::load(std::int64_t step) {
  const auto timed = timer_.time(Phase::data);
  const std::vector<std::int64_t> samples = sampler_.samples(step);
  std::vector<data::Batch> batches;
  for (std::int64_t j = 0; j < batches_.accumulation; ++j) {
    batches.push_back(train_windows_.load(data::micro_batch_of(
        samples, j, batches_.accumulation, mesh_.data().rank(), mesh_.data().size())));
  }
  return batches;
}

// The optimizer's work of the last step is done by now; that of this one has not begun.
telemetry::RegionTimer::Seconds Trainer::device_seconds() const {
  telemetry::RegionTimer::Seconds seconds = gradients_.region_seconds();
  const telemetry::RegionTimer::Seconds update = optimizer_timer_.seconds();
  for (std::size_t i = 0; i < seconds.size(); ++i) seconds[i] += update[i];
  return seconds;
}

void Trainer::apply(StepReport& report) {
  const auto timed = timer_.time(Phase::optimizer);
  report.learning_rate = schedule_.learning_rate(state_.step);
  report.skipped =
      state_.guard.reason_to_skip(state_.step, report.total_loss, report.gradient_norm);
  if (report.skipped) return;

  const double scale =
      clip_factor(report.gradient_norm * report.gradient_norm, config_.train.optimizer.clip_norm);
  optimizer_timer_.begin();
  state_.update(report.learning_rate, scale);
  optimizer_timer_.end();
  const double rest =
      config_.model.moe.balance.bias_fraction * static_cast<double>(config_.train.steps);
  if (static_cast<double>(state_.step) >= rest) return;
  const auto& mixtures = state_.model.mixtures();
  if (config_.model.moe.balance.bias_rate == 0.0 || mixtures.empty()) return;
  const Tensor& load = expert_load_(report.expert_load);
  for (std::size_t i = 0; i < mixtures.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    mixtures[i]->update_bias(load.slice(row, row + 1));
  }
}

void Trainer::publish(const StepReport& report) {
  std::vector<double>& losses = state_.recent_losses;
  losses.push_back(report.loss);
  if (losses.size() > kRecentLosses) losses.erase(losses.begin());
  const telemetry::StepTimer::Seconds phases = timer_.take();
  if (!is_root()) return;
  std::vector<telemetry::Metric> metrics = metrics_of(report);
  for (telemetry::Metric& phase : telemetry::phase_metrics(phases))
    metrics.push_back(std::move(phase));
  const MemoryStats pool = memory_stats(state_.store.device());
  metrics.push_back({"pool/peak_bytes", static_cast<double>(pool.peak)});
  metrics.push_back({"pool/reserved_bytes", static_cast<double>(pool.reserved)});
  metrics_.log(state_.step, metrics);
  if (report.skipped) {
    metrics_.event(state_.step, "skipped", *report.skipped);
    progress_->message(fmt::format("step {} skipped: {}", state_.step, *report.skipped));
  }
  progress_->update(state_.step, report.loss, report.tokens);
}

double Trainer::validate() {
  if (valid_windows_.count() == 0) return std::numeric_limits<double>::quiet_NaN();
  const std::int64_t windows = config_.train.validation.batches * config_.train.global_batch;
  const Evaluation result =
      evaluate(state_.model, valid_windows_, windows, batches_.micro_batch, mesh_);
  if (is_root()) {
    metrics_.log(state_.step, {{"validation/loss", result.loss}});
    progress_->message(fmt::format("step {}: validation loss {:.4f} over {} tokens", state_.step,
                                   result.loss, result.tokens));
  }
  return result.loss;
}

bool Trainer::save_is_due() const {
  const CheckpointConfig& config = config_.checkpoint;
  if (config.every > 0 && state_.step % config.every == 0) return true;
  if (config.every_minutes <= 0.0) return false;
  // Clocks of ranks differ: rank 0's decides.
  return mesh_.world().any(is_root() && state_.seconds - saved_at_ >= 60.0 * config.every_minutes);
}

void Trainer::save() {
  note_save(checkpoints_.wait());
  checkpoints_.start(state_, identity_);
  saved_step_ = state_.step;
  saved_at_ = state_.seconds;
}

void Trainer::note_save(std::optional<std::int64_t> step) {
  if (step && is_root()) metrics_.event(*step, "checkpoint", "saved");
}

RankMemoryUse Trainer::memory_use(std::int64_t state) const {
  const MemoryStats pool = memory_stats(state_.store.device());
  std::int64_t most[] = {state_.weight_bytes(), state, state_.optimizer_bytes(), pool.peak,
                         pool.reserved};
  mesh_.world().all_reduce(std::span<std::int64_t>(most), parallel::Reduce::max);
  const auto [weights, before, optimizer, peak, reserved] = most;
  return {weights, before - weights - optimizer, optimizer, peak - before, peak, reserved};
}

void Trainer::write_result(const TrainResult& result, bool trained) const {
  if (!is_root()) return;
  // A finished run that is resumed has nothing to add to what the process that trained it wrote.
  if (!trained && std::filesystem::exists(folder_->file("result.json"))) return;
  const auto number = [](double x) {
    return std::isfinite(x) ? nlohmann::json(x) : nlohmann::json(nullptr);
  };
  const nlohmann::json json = {{"step", result.step},
                               {"train_loss", number(result.train_loss)},
                               {"validation_loss", number(result.validation_loss)},
                               {"tokens", state_.tokens},
                               {"seconds", state_.seconds},
                               {"memory",
                                {{"weights", result.memory.weights},
                                 {"gradients", result.memory.gradients},
                                 {"optimizer", result.memory.optimizer},
                                 {"activations", result.memory.activations},
                                 {"peak", result.memory.peak},
                                 {"reserved", result.memory.reserved}}},
                               {"parameters", parameter_summary(config_.model)},
                               {"config_hash", identity_.config_hash}};
  folder_->write("result.json", json.dump(2) + "\n");
}

}  // namespace fulcrum::apps
