#include "apps/train/run_identity.h"

#include "apps/train/config_parser.h"
#include "framework/core/error.h"
#include "tests/apps/small_experiment.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::apps;
using testing::message_of;

namespace {

std::string without_line(std::string text, const std::string& key) {
  const auto at = text.find(key + ":");
  REQUIRE(at != std::string::npos);
  const auto begin = text.rfind('\n', at) + 1;
  return text.erase(begin, text.find('\n', at) + 1 - begin);
}

}  // namespace

TEST_CASE("a resumed run keeps what decides the numbers", "[unit][config]") {
  ExperimentConfig config = testing::small_experiment();
  const std::string saved = to_yaml(config);

  SECTION("and may change the rest") {
    config.run_dir = "elsewhere";
    config.threads = 3;
    config.train.steps = 20;
    config.train.optimizer.lr = 1.0;
    config.train.optimizer.moments = DType::bf16;
    config.parallel.bucket_mib = 1.0;
    CHECK(changed_numbers(saved, "saved", to_yaml(config)).empty());
  }
  SECTION("each change is named") {
    config.model.ffn_width = 24;
    config.train.seed = 7;
    CHECK(changed_numbers(saved, "saved", to_yaml(config)) ==
          "model.ffn_width was 16, is 24; train.seed was 0, is 7");
  }
  SECTION("a version with fewer keys had their defaults") {
    const std::string older = without_line(without_line(saved, "moments"), "norm_eps");
    CHECK(changed_numbers(older, "saved", saved).empty());
    config.model.norm_eps = 1e-5;
    CHECK(changed_numbers(older, "saved", to_yaml(config)) == "model.norm_eps was 1e-06, is 1e-05");
  }
  SECTION("a version with more keys is not understood") {
    const std::string newer = saved + "later: 3\n";
    CHECK(message_of<UserError>([&] { changed_numbers(newer, "saved", saved); }).find("saved:") ==
          0);
  }
}
