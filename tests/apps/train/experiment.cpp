#include "tests/apps/train/experiment.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "data/manifest.h"
#include "data/token_shard.h"
#include "data/tokenizer.h"
#include "framework/core/file.h"
#include "framework/core/philox.h"
#include "tests/catch.h"

namespace fulcrum::testing {
namespace {

constexpr const char* kConfig = R"(
threads: 1
data: {path: DATA}
model:
  layers: 2
  width: 32
  ffn_width: 64
  attention: {heads: 2}
train:
  steps: 8
  sequence_length: 32
  global_batch: 8
  seed: 7
  log_every: 1
  optimizer: {lr: 1.0e-3}
  schedule: {kind: constant}
  validation: {batches: 2}
)";

data::SplitRecord write_split(const std::filesystem::path& folder, const std::string& name,
                              std::int64_t documents, std::uint64_t seed) {
  const auto tokenizer = data::make_byte_tokenizer();
  const Random random(seed, stream_of("text"));
  std::uint64_t at = 0;
  const auto below = [&](std::uint64_t n) { return random.below(at++, n); };
  const std::vector<std::string> words = {"the ", "router ", "sends ", "each ",  "token ",
                                          "to ",  "its ",    "expert", "s and ", "rows "};
  data::TokenShardWriter writer(folder / name, tokenizer->vocabulary());
  std::int64_t bytes = 0;
  for (std::int64_t d = 0; d < documents; ++d) {
    std::string text;
    for (std::uint64_t n = 10 + below(60); n > 0; --n) text += words[below(words.size())];
    bytes += static_cast<std::int64_t>(text.size());
    std::vector<std::int32_t> ids = tokenizer->encode(text);
    ids.push_back(tokenizer->end_of_document());
    writer.add_document(ids);
  }
  const std::int64_t tokens = writer.tokens();
  const auto digests = writer.finish();
  return {documents, tokens, bytes, {{name, documents, tokens, bytes, digests.bin, digests.idx}}};
}

std::vector<nlohmann::json> lines_of(const std::filesystem::path& path) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_text(path));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

}  // namespace

Experiment::Experiment(std::uint64_t text_seed) {
  std::filesystem::create_directories(data());
  const auto tokenizer = data::make_byte_tokenizer();
  data::Manifest manifest;
  manifest.tokenizer = {
      "bytes", "", {}, tokenizer->vocabulary(), tokenizer->end_of_document(), tokenizer->pad()};
  manifest.train = write_split(data(), "train-00000", 80, text_seed);
  manifest.valid = write_split(data(), "valid-00000", 4, text_seed + 1);
  data::write_manifest(data(), manifest);
  std::string text = kConfig;
  text.replace(text.find("DATA"), 4, data().string());
  write_text(config(), text);
}

std::string Experiment::command(int ranks, const std::string& run,
                                const std::string& arguments) const {
  const bool gpus = contains(arguments, "device=cuda");
  std::string start;
  if (ranks > 1) start = gpus ? mpirun_on_gpus(ranks) : mpirun(ranks) + "--bind-to none ";
  return fmt::format("{}" FULCRUM_PROGRAM " train {} --run-dir {} {} {}", start, config().string(),
                     run_dir(run).string(), gpus ? "" : "--set device=cpu", arguments);
}

Finished Experiment::train(int ranks, const std::string& run, const std::string& arguments,
                           int limit_seconds) const {
  return testing::run(command(ranks, run, arguments), limit_seconds);
}

void Experiment::wait_for_step(const std::string& run, Process& job) const {
  const auto metrics = run_dir(run) / "metrics.jsonl";
  while (job.running()) {
    std::error_code ignored;
    const auto bytes = std::filesystem::file_size(metrics, ignored);
    if (!ignored && bytes > 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  FAIL("the run ended before its first step: " << job.wait().output);
}

std::map<std::int64_t, LoggedStep> Experiment::steps(const std::string& run) const {
  std::map<std::int64_t, LoggedStep> steps;
  for (const auto& line : lines_of(run_dir(run) / "metrics.jsonl")) {
    if (!line.contains("loss")) continue;
    const LoggedStep step{line["loss"], line["total_loss"], line["gradient_norm"],
                          line["learning_rate"]};
    INFO(run << ": " << line.dump());
    REQUIRE(steps.emplace(line["step"], step).second);
  }
  return steps;
}

std::map<std::int64_t, double> Experiment::validation(const std::string& run) const {
  std::map<std::int64_t, double> losses;
  for (const auto& line : lines_of(run_dir(run) / "metrics.jsonl")) {
    if (!line.contains("validation/loss")) continue;
    INFO(run << ": " << line.dump());
    const double loss = line["validation/loss"];
    REQUIRE(losses.emplace(line["step"], loss).first->second == loss);
  }
  return losses;
}

std::string model_options(const std::string& kind) {
  if (kind == "dense") return "";
  const std::string experts =
      " --set model.moe.experts=8 --set model.moe.top_k=2 --set model.moe.shared_experts=1"
      " --set model.moe.expert_width=32";
  const std::string bias = experts +
                           " --set model.moe.score=sigmoid --set model.moe.renormalize=true"
                           " --set model.moe.balance.bias_rate=0.001";
  if (kind == "moe-loss") return experts + " --set model.moe.balance.expert_loss=0.01";
  if (kind == "moe-bias") return bias;
  FULCRUM_CHECK(kind == "dse", "no model {}", kind);
  return bias +
         " --set model.dse.layers=[1] --set model.dse.heads=2 --set model.dse.width=32"
         " --set model.dse.rows_per_head=[97]";
}

void require_same_tensors(const std::filesystem::path& a, const std::filesystem::path& b,
                          const std::string& but) {
  checkpoint::CheckpointReader first(a);
  checkpoint::CheckpointReader second(b);
  first.verify();
  second.verify();
  REQUIRE(first.tensors().size() == second.tensors().size());
  for (const checkpoint::TensorInfo& info : first.tensors()) {
    if (info.name.starts_with(but)) continue;
    INFO(info.name);
    REQUIRE(second.contains(info.name));
    const Tensor x = first.read(info.name);
    const Tensor y = second.read(info.name);
    REQUIRE(x.shape() == y.shape());
    REQUIRE(x.bytes() == y.bytes());
    REQUIRE(std::memcmp(x.raw(), y.raw(), static_cast<std::size_t>(x.bytes())) == 0);
  }
}

void require_ok(const Finished& job) {
  INFO(job.output);
  REQUIRE(job.exit_code == 0);
}

int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

}  // namespace fulcrum::testing
