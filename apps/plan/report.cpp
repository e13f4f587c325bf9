#include "apps/plan/report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iterator>
#include <map>

#include "apps/train/config_parser.h"
#include "data/manifest.h"
#include "framework/core/error.h"
#include "framework/telemetry/progress.h"

namespace fulcrum::apps {
namespace {

using models::ParameterCount;

std::int64_t tokenizer_vocabulary(const DataConfig& data) {
  if (data.path.empty())
    throw UserError(
        "model.vocabulary: must be given when there is no prepared data; found 0 (the tokenizer's) "
        "without "
        "data.path");
  return data::read_manifest(data.path).tokenizer.vocabulary;
}

std::string count_text(double n) {
  if (n >= 1e12) return fmt::format("{:.3f} T", n / 1e12);
  if (n >= 1e9) return fmt::format("{:.3f} B", n / 1e9);
  if (n >= 1e6) return fmt::format("{:.3f} M", n / 1e6);
  return fmt::format("{}", n);
}

// In the order of models::Part.
std::map<models::Part, std::int64_t> sums_by_part(const models::ModelConfig& model) {
  std::map<models::Part, std::int64_t> sums;
  for (const auto& tensor : models::list_parameters(model)) sums[tensor.part] += tensor.numel();
  return sums;
}

std::string row(const std::string& name, std::int64_t n, std::int64_t total) {
  return fmt::format("  {:<22}{:>12}{:>8.1f} %\n", name, count_text(static_cast<double>(n)),
                     100.0 * static_cast<double>(n) / static_cast<double>(total));
}

std::string budget_text(const Plan& plan) {
  const auto& budget = plan.budget;
  const auto& moe = budget.model.moe;
  if (moe.experts == 0) return "";
  std::string text = fmt::format("rho {:.4f}: {} routed experts a layer, {} active", budget.rho,
                                 budget.experts, moe.active());
  if (budget.model.dse)
    text += fmt::format(", {} rows a hash head", fmt::join(budget.model.dse->rows_per_head, ", "));
  if (plan.experiment.model.budget.rho)
    text += fmt::format(
        "\n  asked for rho {} of {} experts; parameters {:+.5f} % off those at rho 1, activated "
        "{:+.3f} %",
        *plan.experiment.model.budget.rho, budget.experts_full, 100 * budget.deviation,
        100.0 * static_cast<double>(budget.count.active - budget.full.active) /
            static_cast<double>(budget.full.active));
  return text + "\n";
}

}  // namespace

Plan make_plan(ExperimentConfig experiment, std::int64_t ranks) {
  Plan plan;
  plan.config_hash = config_hash(experiment);
  auto& model = experiment.model;
  if (model.vocabulary == 0) model.vocabulary = tokenizer_vocabulary(experiment.data);
  plan.budget = models::plan_budget(model);
  plan.mesh = {ranks, experiment.parallel.pipeline, experiment.parallel.expert};
  plan.mesh.check();
  plan.mesh.check_layers(model.layers);
  plan.mesh.check_experts(plan.budget.model.moe.routed());
  plan.batch =
      parallel::plan_batch(plan.mesh, experiment.train.global_batch, experiment.train.micro_batch);
  ExperimentConfig built = experiment;
  built.model = plan.budget.model;
  plan.memory = estimate_memory(built, plan.mesh);
  plan.flops_per_token = models::flops_per_token(built.model, experiment.train.sequence_length);
  plan.experiment = std::move(experiment);
  return plan;
}

nlohmann::ordered_json to_json(const Plan& plan) {
  const auto& budget = plan.budget;
  const ParameterCount& count = budget.count;
  nlohmann::ordered_json json;
  json["config_hash"] = plan.config_hash;
  auto& parameters = json["parameters"];
  parameters = {{"total", count.total},
                {"active", count.active},
                {"embedding", count.embedding},
                {"experts", count.experts},
                {"memory", count.memory},
                {"other", count.other},
                {"routed_experts", count.routed_experts},
                {"tables", count.tables},
                {"p_tot", count.p_tot()},
                {"p_act", count.p_act()},
                {"p_sparse", count.p_sparse()}};
  for (const auto& [part, n] : sums_by_part(budget.model)) parameters["by_part"][name_of(part)] = n;
  json["definitions"] = {
      {"total", "all parameters: embedding + experts + memory + other"},
      {"active", "used by one token, without the token embedding, with the head: p_act + head"},
      {"embedding", "token embedding and output head; one matrix when they are tied"},
      {"experts", "routed and shared expert matrices; the routers are in other"},
      {"memory", "n-gram tables with their projections, norms and convolutions"},
      {"other", "attention, dense feed-forwards, routers, norms, hyper-connections"},
      {"p_tot", "total - embedding"},
      {"p_act",
       "those of p_tot that one token uses: the visited experts, one row of each hash head"},
      {"p_sparse", "p_tot - p_act"},
      {"rho", "share of the sparse parameters that is routed experts"},
      {"flops_per_token",
       "forward and backward: 6 x matrix parameters in use + attention over the keys seen"},
      {"memory_per_rank", "estimated bytes on the rank that needs most"}};
  json["rho"] = budget.rho;
  json["budget"] = {{"rho_asked", nullptr},
                    {"experts_at_rho_1", budget.experts_full},
                    {"experts", budget.experts},
                    {"rows_per_head", nullptr},
                    {"total_at_rho_1", budget.full.total},
                    {"active_at_rho_1", budget.full.active},
                    {"deviation", budget.deviation}};
  if (plan.experiment.model.budget.rho)
    json["budget"]["rho_asked"] = *plan.experiment.model.budget.rho;
  if (budget.model.dse) json["budget"]["rows_per_head"] = budget.model.dse->rows_per_head;
  json["flops_per_token"] = plan.flops_per_token;
  json["steps"] = plan.experiment.train.steps;
  json["tokens_per_step"] = plan.tokens_per_step();
  json["tokens"] = plan.tokens();
  json["total_flops"] = plan.tokens() * plan.flops_per_token;
  json["ranks"] = plan.mesh.world;
  json["mesh"] = {
      {"pipeline", plan.mesh.pipeline}, {"data", plan.mesh.data()}, {"expert", plan.mesh.expert}};
  json["micro_batch"] = plan.batch.micro_batch;
  json["accumulation"] = plan.batch.accumulation;
  json["memory_per_rank"] = {{"weights", plan.memory.weights},
                             {"gradients", plan.memory.gradients},
                             {"optimizer", plan.memory.optimizer},
                             {"activations", plan.memory.activations},
                             {"dispatch_buffers", plan.memory.dispatch},
                             {"checkpoint", plan.memory.checkpoint},
                             {"total", plan.memory.total()}};
  return json;
}

std::string to_text(const Plan& plan) {
  const ParameterCount& count = plan.budget.count;
  std::string text = fmt::format("parameters {}, activated {} (without token embedding)\n",
                                 count_text(static_cast<double>(count.total)),
                                 count_text(static_cast<double>(count.active)));
  for (const auto& [part, n] : sums_by_part(plan.budget.model))
    text += row(name_of(part), n, count.total);
  text += fmt::format("P_tot {}, P_act {}, P_sparse {} (without embedding and head)\n",
                      count_text(static_cast<double>(count.p_tot())),
                      count_text(static_cast<double>(count.p_act())),
                      count_text(static_cast<double>(count.p_sparse())));
  text += budget_text(plan);
  text += fmt::format(
      "training {} steps of {} tokens = {} tokens, {} FLOP a token, {:.3e} FLOP in all\n",
      plan.experiment.train.steps, plan.tokens_per_step(), count_text(plan.tokens()),
      count_text(plan.flops_per_token), plan.tokens() * plan.flops_per_token);
  text += fmt::format("memory of a rank, estimated ({}; {} x {} sequences a step)\n",
                      plan.mesh.describe(), plan.batch.accumulation, plan.batch.micro_batch);
  const std::pair<const char*, std::int64_t> kinds[] = {{"weights", plan.memory.weights},
                                                        {"gradients", plan.memory.gradients},
                                                        {"optimizer", plan.memory.optimizer},
                                                        {"activations", plan.memory.activations},
                                                        {"dispatch buffers", plan.memory.dispatch},
                                                        {"checkpoint", plan.memory.checkpoint},
                                                        {"total", plan.memory.total()}};
  for (const auto& [name, bytes] : kinds)
    text += fmt::format("  {:<22}{:>12}\n", name, telemetry::bytes_text(bytes));
  return text;
}

std::string tensors_text(const Plan& plan) {
  std::string text;
  for (const auto& tensor : models::list_parameters(plan.budget.model))
    text += fmt::format("{:<56} {:<24} {}\n", tensor.name, to_string(tensor.shape), tensor.numel());
  return text;
}

}  // namespace fulcrum::apps
