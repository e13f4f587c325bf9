#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>

#include "apps/commands.h"
#include "framework/checkpoint/reader.h"
#include "framework/checkpoint/safetensors.h"
#include "framework/core/file.h"

namespace fulcrum::apps {
using namespace checkpoint;
namespace {

constexpr std::int64_t kBlockBytes = std::int64_t{16} << 20;

struct ExportArguments {
  std::string checkpoint;
  std::string out;
  std::string dtype;
  bool buffers = false;
};

bool has_prefix(const std::string& text, const std::string& prefix) {
  return text.rfind(prefix, 0) == 0;
}

// Tensors that a model needs, in the order of their names.
std::vector<const TensorInfo*> chosen_tensors(const CheckpointReader& reader, bool buffers) {
  std::vector<const TensorInfo*> chosen;
  for (const TensorInfo& tensor : reader.tensors()) {
    if (has_prefix(tensor.name, kParameters) || (buffers && has_prefix(tensor.name, kBuffers))) {
      chosen.push_back(&tensor);
    }
  }
  if (chosen.empty()) {
    throw UserError(fmt::format("{}: holds no parameters", reader.folder().string()));
  }
  return chosen;
}

std::map<std::string, std::string> metadata_of(const CheckpointReader& reader) {
  std::map<std::string, std::string> metadata{{"format", "pt"}};
  for (const auto& [name, value] : reader.attributes()) {
    if (name == "format") continue;
    metadata[name] = std::visit([](const auto& v) { return fmt::format("{}", v); }, value);
  }
  return metadata;
}

void run_export(const ExportArguments& arguments) {
  CheckpointReader reader(arguments.checkpoint);
  reader.verify();
  const auto chosen = chosen_tensors(reader, arguments.buffers);
  const auto target_dtype = [&](DType stored) {
    return arguments.dtype.empty() || !is_floating(stored) ? stored
                                                           : dtype_from_name(arguments.dtype);
  };
  std::vector<SafetensorsEntry> entries;
  std::int64_t elements = 0;
  for (const TensorInfo* tensor : chosen) {
    entries.push_back({tensor->name.substr(tensor->name.find('/') + 1), target_dtype(tensor->dtype),
                       tensor->shape});
    elements += tensor->shape.numel();
  }
  SafetensorsWriter writer(arguments.out, entries, metadata_of(reader));
  for (const TensorInfo* tensor : chosen) {
    if (tensor->shape.numel() == 0) continue;
    const std::int64_t row = tensor->shape.numel() / tensor->shape[0] * size_of(tensor->dtype);
    const std::int64_t rows = std::max<std::int64_t>(kBlockBytes / row, 1);
    for (std::int64_t first = 0; first < tensor->shape[0]; first += rows) {
      const std::int64_t count = std::min(rows, tensor->shape[0] - first);
      const Tensor block = reader.read_rows(tensor->name, first, count);
      const DType dtype = target_dtype(tensor->dtype);
      writer.append(dtype == tensor->dtype ? block : block.to(dtype));
    }
  }
  writer.finish();
  std::printf("%s: %zu tensors, %lld elements, step %lld\n", arguments.out.c_str(), chosen.size(),
              static_cast<long long>(elements), static_cast<long long>(reader.step()));
}

}  // namespace

void add_export(CLI::App& app) {
  auto arguments = std::make_shared<ExportArguments>();
  CLI::App* command =
      app.add_subcommand("export", "Write the parameters of a checkpoint to a safetensors file");
  command
      ->add_option("checkpoint", arguments->checkpoint,
                   "A folder of checkpoints (its latest) or one checkpoint")
      ->required();
  command->add_option("--out", arguments->out, "The file to write")->required();
  command->add_option("--dtype", arguments->dtype, "Convert floating-point tensors")
      ->check(CLI::IsMember({"f64", "f32", "bf16"}));
  command->add_flag("--buffers", arguments->buffers, "Router biases and other buffers too");
  command->footer(
      "Example:\n  fulcrum export runs/quickstart/base/checkpoints --out model.safetensors --dtype "
      "bf16");
  command->callback([arguments] { run_export(*arguments); });
}

}  // namespace fulcrum::apps
