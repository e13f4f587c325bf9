#pragma once
// A sweep as a Slurm job array, one task a point. Written into DIR/slurm:
//
//   sweep.sbatch   the array script: %parallel tasks at once; SIGTERM reaches the batch shell 300 s
//   before the time limit, the
//                  point writes a checkpoint, and the task requeues itself (by array_task, as Slurm
//                  wants it)
//   collect.sbatch fit and report, to be started after the array
//   submit.sh      submits both, the second depending on the first

#include <filesystem>
#include <string>

#include "apps/sweep/manifest.h"

namespace fulcrum::apps {

// The text of the array script. `program` is the fulcrum executable; paths are made absolute.
std::string array_script(const Manifest& manifest, const std::string& program);

// Writes the three files; returns the path of submit.sh.
std::filesystem::path write_slurm(const Manifest& manifest, const std::string& program);

}  // namespace fulcrum::apps
