#pragma once
// Checkpoints of a training run: framework/checkpoint with the ranks' agreement around it.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "apps/train/run_identity.h"
#include "apps/train/training_state.h"
#include "framework/checkpoint/background_writer.h"
#include "framework/checkpoint/store.h"
#include "parallel/communicator.h"

namespace fulcrum::apps {

// Whether the folder holds a finished checkpoint, or names one that has gone.
bool holds_checkpoints(const std::filesystem::path& directory);

class Checkpoints {
 public:
  // Rank 0 first ends what a killed run left half done; the run must own the directory.
  Checkpoints(const std::filesystem::path& directory, std::int64_t keep,
              const parallel::Communicator& world);

  // Rank 0's holds_checkpoints, on every rank. Collective.
  bool exist() const;
  // Fills the state from the checkpoint of that name, `latest` when it is empty, on whatever mesh
  // it was saved. Throws UserError when the run that saved it differs in what decides the numbers,
  // IoError when it is damaged. Collective.
  void restore(TrainingState& state, const RunIdentity& identity, const std::string& name) const;

  // Starts to save in the background; waits for a save under way first. Collective.
  void start(const TrainingState& state, const RunIdentity& identity);
  // Completes the save under way if all ranks have written their files. Returns its step then, when
  // `latest` is on it. Collective.
  std::optional<std::int64_t> poll();
  // Waits for the save under way and completes it. Collective.
  std::optional<std::int64_t> wait();

 private:
  std::int64_t complete();

  std::filesystem::path directory_;
  checkpoint::CheckpointStore store_;
  parallel::Communicator world_;
  checkpoint::BackgroundWriter writer_;
  std::int64_t saving_ = -1;  // step under way
  checkpoint::Attributes attributes_;
};

}  // namespace fulcrum::apps
