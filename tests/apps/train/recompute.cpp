// What backward computes again, and whether a step is captured as a graph, changes no bit of a run.

#include "tests/apps/train/experiment.h"
#include "tests/catch.h"

using namespace fulcrum::testing;

namespace {

void check_same(int ranks, const std::string& options, const std::vector<std::string>& variants) {
  const Experiment experiment;
  require_ok(experiment.train(ranks, "plain", options));
  for (std::size_t i = 0; i < variants.size(); ++i) {
    INFO(variants[i]);
    const std::string run = fmt::format("variant-{}", i);
    require_ok(experiment.train(ranks, run, options + variants[i]));
    CHECK(experiment.steps(run) == experiment.steps("plain"));
    CHECK(experiment.validation(run) == experiment.validation("plain"));
    require_same_tensors(experiment.checkpoints(run), experiment.checkpoints("plain"));
  }
}

const std::vector<std::string> kRecompute{" --set train.recompute=selective",
                                          " --set train.recompute=full"};

}  // namespace

TEST_CASE("recompute changes no bit of a run", "[cli][train]") {
  SECTION("dense") { check_same(1, model_options("dense"), kRecompute); }
  SECTION("balance loss of the global batch, micro-batches, 2 ranks") {
    check_same(2, model_options("moe-loss") + " --set train.micro_batch=2", kRecompute);
  }
  SECTION("experts and memory, 2 ranks") { check_same(2, model_options("dse"), kRecompute); }
}

TEST_CASE("recompute and graphs change no bit of a run on a GPU", "[gpu][train][slow]") {
  std::vector<std::string> variants = kRecompute;
  variants.push_back(" --set train.cuda_graph=false");
  const std::string gpu = " --set device=cuda";
  SECTION("dense") { check_same(1, gpu + model_options("dense"), variants); }
  SECTION("balance loss of the global batch, micro-batches") {
    check_same(1, gpu + model_options("moe-loss") + " --set train.micro_batch=2", variants);
  }
  SECTION("experts and memory") { check_same(1, gpu + model_options("dse"), variants); }
}
