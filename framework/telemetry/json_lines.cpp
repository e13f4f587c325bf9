#include "framework/telemetry/json_lines.h"

#include <nlohmann/json.hpp>

namespace fulcrum::telemetry {
namespace {

using Json = nlohmann::ordered_json;

// The lines of a metrics file that a run starting at first_step keeps.
std::string lines_before(const std::string& text, std::int64_t first_step) {
  std::string kept;
  std::size_t begin = 0;
  for (std::size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string line = text.substr(begin, end - begin);
    const Json object = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object() || !object.contains("step") || object["step"] >= first_step) continue;
    kept += line + "\n";
  }
  return kept;
}

}  // namespace

JsonLines::JsonLines(const std::filesystem::path& path, std::int64_t first_step) {
  std::error_code ignored;  // opening the file reports what matters
  std::filesystem::create_directories(path.parent_path(), ignored);
  if (std::filesystem::exists(path)) {
    const std::string text = read_text(path);
    const std::string kept = lines_before(text, first_step);
    if (kept != text) replace_file(path, kept);
  }
  file_ = OutputFile(path, OutputFile::Mode::append);
}

void JsonLines::log(std::int64_t step, double wall_time, const std::vector<Metric>& metrics) {
  Json line{{"step", step}, {"time", wall_time}};
  for (const Metric& metric : metrics) line[metric.name] = metric.value;
  file_.write(line.dump() + "\n");
}

void JsonLines::event(std::int64_t step, double wall_time, std::string_view kind,
                      std::string_view text) {
  const Json line{{"step", step}, {"time", wall_time}, {"event", kind}, {"text", text}};
  file_.write(line.dump() + "\n");
}

}  // namespace fulcrum::telemetry
