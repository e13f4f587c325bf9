#include "apps/sweep/slurm.h"

#include <cstdlib>

#include "tests/apps/sweep/fake_sweep.h"
#include "tests/catch.h"

using namespace fulcrum::apps;
using fulcrum::testing::FakeSweep;

TEST_CASE("the Slurm script is an array with a task a point", "[unit][sweep]") {
  FakeSweep sweep;
  sweep.spec += "slurm: {partition: cpu, time: '01:00:00', parallel: 3, options: [--mem=2G]}\n";
  const std::string text = array_script(sweep.plan(), "/opt/it's/fulcrum");
  for (const char* line :
       {"#SBATCH --array=0-9%3\n", "#SBATCH --signal=B:TERM@300\n", "#SBATCH --requeue\n",
        "#SBATCH --partition=cpu\n", "#SBATCH --time=01:00:00\n", "#SBATCH --mem=2G\n",
        "#SBATCH --ntasks=1\n", "'/opt/it'\\''s/fulcrum' sweep --point \"$SLURM_ARRAY_TASK_ID\""})
    CHECK(text.find(line) != std::string::npos);
}

TEST_CASE("an array task that runs out of time requeues itself", "[unit][sweep]") {
  // The program runs until TERM and then ends as an interrupted point does; scontrol records its
  // arguments.
  FakeSweep sweep;
  const auto program =
      sweep.folder.write("program",
                         "#!/bin/sh\ntrap 'kill $!; echo saved > saved; exit 1' TERM\n"
                         "touch up; sleep 20 > /dev/null 2>&1 & wait $!; exit 0\n");
  const auto scontrol = sweep.folder.write("bin/scontrol", "#!/bin/sh\necho \"$@\" > requeued\n");
  std::filesystem::permissions(program, std::filesystem::perms::owner_all);
  std::filesystem::permissions(scontrol, std::filesystem::perms::owner_all);
  const Manifest manifest = sweep.plan();
  const auto submit = write_slurm(manifest, program.string());
  CHECK(std::filesystem::exists(submit));
  const std::string run = "cd " + sweep.folder.path().string() +
                          " && sed 's|^cd .*|cd .|' out/slurm/sweep.sbatch > task.sh && "
                          "(SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=3 SLURM_RESTART_COUNT=0 "
                          "PATH=$PWD/bin:$PATH bash task.sh & task=$!; "
                          "until [ -f up ]; do sleep 0.02; done; kill -TERM $task; wait $task); [ "
                          "$? -eq 1 ] && [ -f saved ]";
  CHECK(std::system(run.c_str()) == 0);
  CHECK(fulcrum::read_text(sweep.folder.path() / "requeued") == "requeue 7_3\n");
}
