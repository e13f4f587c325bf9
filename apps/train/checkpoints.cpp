#include "apps/train/checkpoints.h"

#include <map>
#include <optional>
#include <sstream>

#include "framework/checkpoint/folder.h"
#include "framework/checkpoint/reader.h"
#include "framework/checkpoint/shard_file.h"

namespace fulcrum::apps {
namespace {

using checkpoint::TensorEntry;

// What has no parameter: vectors of doubles, which may be empty.
constexpr const char* kGuard = "trainer/guard";
constexpr const char* kRecentLosses = "trainer/recent_losses";

TensorEntry vector_entry(const char* name, const std::vector<double>& values) {
  return TensorEntry::whole(name, Tensor::from(values, {static_cast<std::int64_t>(values.size())}));
}

// What this rank holds of the tensors that have no parameter, and of the optimizers' state.
std::vector<TensorEntry> entries_beside_parameters(const TrainingState& state) {
  std::vector<TensorEntry> entries;
  for (const auto& b : state.store.buffers()) {
    entries.push_back(TensorEntry::whole(checkpoint::kBuffers + b->name, b->value));
  }
  for (const auto& optimizer : state.optimizers) {
    for (const StateTensor& s : optimizer->state()) {
      const Parameter& p = *s.parameter;
      Shape global = s.value.shape();
      global[0] = p.global_shape[0];
      entries.push_back({s.name, s.value, global, p.shard.first + p.master_rows.first});
    }
  }
  return entries;
}

// Parameters are saved as their masters.
std::vector<TensorEntry> all_entries(const TrainingState& state) {
  std::vector<TensorEntry> entries = entries_beside_parameters(state);
  for (const auto& p : state.store.parameters()) {
    entries.push_back({checkpoint::kParameters + p->name, p->master, p->global_shape,
                       p->shard.first + p->master_rows.first});
  }
  return entries;
}

void restore_parameter(checkpoint::CheckpointReader& reader, const Parameter& p) {
  const std::string name = checkpoint::kParameters + p.name;
  // The value needs all rows of the shard, whatever part of them the master holds.
  if (!p.rounded()) return reader.read_into({name, p.value, p.global_shape, p.shard.first});
  const Tensor rows = Tensor::empty(p.value.shape(), p.master.dtype());
  reader.read_into({name, rows, p.global_shape, p.shard.first});
  p.value.copy_from(rows.to(p.value.dtype()));
  p.master.copy_from(rows.slice(p.master_rows.first, p.master_rows.first + p.master_rows.count));
}

// Moments of optimizers may have been saved in f32 and be bf16 now, or the other way round.
void restore_entry(checkpoint::CheckpointReader& reader, const TensorEntry& entry) {
  const DType now = entry.value.dtype();
  const DType saved = reader.info(entry.name).dtype;
  const bool widened = saved == DType::bf16 && now == DType::f32;
  const bool rounded = saved == DType::f32 && now == DType::bf16;
  if (!widened && !rounded) return reader.read_into(entry);
  const Tensor rows = Tensor::empty(entry.value.shape(), saved);
  reader.read_into({entry.name, rows, entry.global_shape, entry.first_row});
  entry.value.copy_from(rows.to(now));
}

// Texts of all ranks, in rank order.
std::vector<std::string> gather_texts(const parallel::Communicator& world,
                                      const std::string& text) {
  const std::vector<std::int64_t> sizes = world.all_gather(static_cast<std::int64_t>(text.size()));
  const Tensor bytes = Tensor::empty({static_cast<std::int64_t>(text.size())}, DType::u8);
  bytes.copy_from_host(text.data(), bytes.bytes());
  const Tensor all = world.all_gather(bytes, sizes);
  std::vector<std::string> texts;
  std::int64_t offset = 0;
  for (const std::int64_t size : sizes) {
    texts.emplace_back(reinterpret_cast<const char*>(all.data<std::uint8_t>()) + offset, size);
    offset += size;
  }
  return texts;
}

// Those that this rank writes. Ranks that hold the same rows of a tensor take turns. Collective.
std::vector<TensorEntry> entries_of_rank(const TrainingState& state,
                                         const parallel::Communicator& world) {
  std::vector<TensorEntry> entries = all_entries(state);
  const auto text_of = [](const TensorEntry& entry) {
    return fmt::format("{} {} {}", entry.first_row, entry.value.dim(0), entry.name);
  };
  std::string text;
  for (const TensorEntry& entry : entries) text += text_of(entry) + '\n';
  std::map<std::string, std::vector<int>> holders;
  const std::vector<std::string> texts = gather_texts(world, text);
  for (int rank = 0; rank < world.size(); ++rank) {
    std::istringstream lines(texts[static_cast<std::size_t>(rank)]);
    for (std::string line; std::getline(lines, line);) holders[line].push_back(rank);
  }
  std::map<std::string, int> writers;
  std::size_t turn = 0;
  for (const auto& [line, ranks] : holders) writers[line] = ranks[turn++ % ranks.size()];
  std::vector<TensorEntry> mine;
  for (TensorEntry& entry : entries) {
    if (writers.at(text_of(entry)) == world.rank()) mine.push_back(std::move(entry));
  }
  if (world.rank() == 0) {
    mine.push_back(vector_entry(kGuard, state.guard.state()));
    mine.push_back(vector_entry(kRecentLosses, state.recent_losses));
  }
  return mine;
}

// The hash is quick, but another version of this program makes another one when it has more keys.
void check_same_run(const checkpoint::CheckpointReader& reader, const RunIdentity& identity) {
  if (reader.text("numbers_hash") == identity.numbers_hash) return;
  const std::string folder = reader.folder().string();
  const std::string changed =
      changed_numbers(reader.text("config"), folder + ": attribute config", identity.config);
  if (changed.empty()) return;
  throw UserError(
      fmt::format("{}: saved by a run whose numbers differ: {}; a resumed run keeps the model, "
                  "train.seed, train.sequence_length and train.global_batch",
                  folder, changed));
}

}  // namespace

Checkpoints::Checkpoints(const std::filesystem::path& directory, std::int64_t keep,
                         const parallel::Communicator& world)
    : directory_(directory), store_(directory, keep), world_(world) {
  if (world.rank() == 0) store_.recover();
}

bool holds_checkpoints(const std::filesystem::path& directory) {
  return std::filesystem::is_symlink(directory / checkpoint::kLatest) ||
         !checkpoint::step_folders(directory).empty();
}

bool Checkpoints::exist() const {
  return world_.any(world_.rank() == 0 && holds_checkpoints(directory_));
}

void Checkpoints::restore(TrainingState& state, const RunIdentity& identity,
                          const std::string& name) const {
  checkpoint::CheckpointReader reader(name.empty() ? directory_ : directory_ / name);
  check_same_run(reader, identity);
  if (reader.text("data_checksum") != identity.data_checksum) {
    throw UserError(
        fmt::format("{}: saved by a run on other data; the prepared folder has changed since",
                    reader.folder().string()));
  }
  reader.verify(world_.rank(), world_.size());
  world_.barrier();  // nobody goes on from a checkpoint that another rank found damaged
  for (const auto& parameter : state.store.parameters()) restore_parameter(reader, *parameter);
  for (const TensorEntry& entry : entries_beside_parameters(state)) restore_entry(reader, entry);
  for (const auto& optimizer : state.optimizers) {
    optimizer->set_steps(reader.integer("optimizer_steps"));
  }
  state.guard.restore(reader.read(kGuard).to_vector<double>());
  state.recent_losses = reader.read(kRecentLosses).to_vector<double>();
  state.step = reader.integer("step");
  state.tokens = reader.integer("tokens");
  state.seconds = reader.real("seconds");
}

void Checkpoints::start(const TrainingState& state, const RunIdentity& identity) {
  wait();
  saving_ = state.step;
  attributes_ = {{"step", state.step},
                 {"tokens", state.tokens},
                 {"seconds", state.seconds},
                 {"optimizer_steps", state.optimizers.front()->steps()},
                 {"ranks", static_cast<std::int64_t>(world_.size())},
                 {"seed", static_cast<std::int64_t>(state.store.seed())},
                 {"config", identity.config},
                 {"numbers_hash", identity.numbers_hash},
                 {"data_checksum", identity.data_checksum}};
  if (world_.rank() == 0) store_.begin(saving_);
  writer_.start(checkpoint::unfinished_folder(directory_, saving_), world_.rank(),
                entries_of_rank(state, world_), attributes_);
}

std::optional<std::int64_t> Checkpoints::poll() {
  if (saving_ < 0 || world_.any(!writer_.finished())) return std::nullopt;
  return complete();
}

std::optional<std::int64_t> Checkpoints::wait() {
  if (saving_ < 0) return std::nullopt;
  return complete();
}

std::int64_t Checkpoints::complete() {
  const std::int64_t step = std::exchange(saving_, -1);
  std::string error;
  std::string entry;
  try {
    entry = writer_.wait().to_text();
  } catch (const std::exception& e) {
    error = e.what();
  }
  const std::vector<std::string> errors = gather_texts(world_, error);
  for (const std::string& text : errors) {
    if (text.empty()) continue;
    if (world_.rank() == 0) store_.abort(step);
    throw IoError(text);
  }
  const std::vector<std::string> texts = gather_texts(world_, entry);
  if (world_.rank() == 0) {
    std::vector<checkpoint::FileEntry> files;
    for (const std::string& text : texts) files.push_back(checkpoint::FileEntry::from_text(text));
    store_.finalize(step, files, attributes_);
  }
  world_.barrier();  // a rank that goes on may end the job
  return step;
}

}  // namespace fulcrum::apps
