#include "apps/sweep/slurm.h"

#include <fmt/format.h>

#include <algorithm>

#include "framework/core/file.h"

namespace fulcrum::apps {
namespace {

namespace fs = std::filesystem;

// In single quotes for the shell.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string header(const SlurmSpec& slurm) {
  std::string text;
  if (!slurm.partition.empty()) text += fmt::format("#SBATCH --partition={}\n", slurm.partition);
  if (!slurm.account.empty()) text += fmt::format("#SBATCH --account={}\n", slurm.account);
  for (const std::string& option : slurm.options) text += fmt::format("#SBATCH {}\n", option);
  return text;
}

std::string collect_script(const Manifest& manifest, const std::string& program) {
  const fs::path dir = fs::absolute(manifest.dir);
  return fmt::format(
      "#!/bin/bash\n#SBATCH --job-name={}-collect\n#SBATCH --ntasks=1\n#SBATCH --time=00:10:00\n"
      "#SBATCH --output={}/slurm/collect.out\n{}\ncd {} || exit 1\nexec {} sweep --collect "
      "--run-dir {}\n",
      dir.filename().string(), dir.string(), header(manifest.slurm),
      quoted(fs::current_path().string()), quoted(program), quoted(dir.string()));
}

}  // namespace

std::string array_script(const Manifest& manifest, const std::string& program) {
  const fs::path dir = fs::absolute(manifest.dir);
  const SlurmSpec& slurm = manifest.slurm;
  std::string text = fmt::format(
      "#!/bin/bash\n"
      "#SBATCH --job-name={}\n"
      "#SBATCH --array=0-{}%{}\n"
      "#SBATCH --ntasks={}\n"
      "#SBATCH --cpus-per-task={}\n"
      "#SBATCH --time={}\n"
      "#SBATCH --signal=B:TERM@300\n"
      "#SBATCH --requeue\n"
      "#SBATCH --open-mode=append\n"
      "#SBATCH --output={}/slurm/%a.out\n",
      dir.filename().string(), manifest.points.size() - 1, slurm.parallel, manifest.execution.ranks,
      std::max<std::int64_t>(1, manifest.execution.threads), slurm.time, dir.string());
  text += header(slurm);
  text += fmt::format(
      "\ncd {} || exit 1\n"
      "{} sweep --point \"$SLURM_ARRAY_TASK_ID\" --run-dir {} &\n"
      "point=$!\n"
      "stopping=\n"
      "trap 'stopping=1; kill -TERM \"$point\" 2>/dev/null' TERM\n"
      "wait \"$point\"; code=$?\n"
      "# A trapped signal ends wait early; the point still writes its checkpoint.\n"
      "if [ -n \"$stopping\" ]; then wait \"$point\"; code=$?; fi\n"
      "if [ -n \"$stopping\" ] && [ \"$code\" -ne 0 ] && [ \"${{SLURM_RESTART_COUNT:-0}}\" -lt {} "
      "]; then\n"
      "  scontrol requeue \"${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}\"\n"
      "fi\n"
      "exit \"$code\"\n",
      quoted(fs::current_path().string()), quoted(program), quoted(dir.string()), slurm.requeues);
  return text;
}

fs::path write_slurm(const Manifest& manifest, const std::string& program) {
  const fs::path folder = fs::absolute(manifest.dir) / "slurm";
  fs::create_directories(folder);
  replace_file(folder / "sweep.sbatch", array_script(manifest, program));
  replace_file(folder / "collect.sbatch", collect_script(manifest, program));
  const fs::path submit = folder / "submit.sh";
  replace_file(submit, fmt::format("#!/bin/sh\nset -e\narray=$(sbatch --parsable {})\n"
                                   "sbatch --dependency=afterany:\"$array\" {}\n",
                                   quoted((folder / "sweep.sbatch").string()),
                                   quoted((folder / "collect.sbatch").string())));
  fs::permissions(submit, fs::perms::owner_exec | fs::perms::group_exec | fs::perms::others_exec,
                  fs::perm_options::add);
  return submit;
}

}  // namespace fulcrum::apps
