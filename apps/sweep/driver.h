#pragma once
// Runs the points of a sweep on this machine, several at once, and brings a sweep folder from any
// state to its end: points that are done are skipped, interrupted ones go on from their
// checkpoints, failed ones are tried again within the limit. A failed point does not stop the
// others.

#include <filesystem>
#include <string>
#include <vector>

#include "apps/sweep/manifest.h"
#include "apps/sweep/progress.h"

namespace fulcrum::apps {

struct SweepSummary {
  std::int64_t total = 0, done = 0;
  std::vector<std::string> unfinished;  // "rho=0.4 seed=1: failed (exit code 1: …)"
  bool interrupted = false;
};

// Sets what the specification leaves open: threads of a process and points at once, from the cores.
void share_cores(Execution& execution, std::int64_t cores);

// Makes the folder and the manifest, or checks that an existing one plans the same points; then it
// is rewritten with the present execution settings. Throws UserError when the folder has a sweep
// and `resume` is false, or when the points changed.
void settle_folder(const Manifest& planned, bool resume);

// Call with the lock of the folder held. Ends early when SIGINT or SIGTERM arrives: running points
// are asked to stop (they write checkpoints), a second signal kills them.
SweepSummary run_points(const Manifest& manifest, const std::string& program,
                        SweepProgress& progress);

// One point, by its index in the manifest: the work of a Slurm array task.
SweepSummary run_point(const Manifest& manifest, std::int64_t index, const std::string& program,
                       SweepProgress& progress);

// The states as they are on disk.
SweepSummary summarize(const Manifest& manifest);

}  // namespace fulcrum::apps
