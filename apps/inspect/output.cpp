#include <algorithm>

#include "apps/inspect/inspection.h"
#include "framework/core/checksum.h"
#include "framework/core/file.h"

namespace fulcrum::apps {
namespace {

using Json = nlohmann::ordered_json;
using checkpoint::AttributeValue;
using checkpoint::Statistics;

std::int64_t bytes_of(const InspectedTensor& tensor) {
  return tensor.shape.numel() * size_of(tensor.dtype);
}

struct Totals {
  std::int64_t elements = 0, bytes = 0, nan = 0, infinite = 0, parameters = 0;
  explicit Totals(const Inspection& inspection) {
    for (const InspectedTensor& tensor : inspection.tensors) {
      elements += tensor.shape.numel();
      bytes += bytes_of(tensor);
      nan += tensor.statistics.nan();
      infinite += tensor.statistics.infinite();
      if (tensor.name.rfind(checkpoint::kParameters, 0) == 0) parameters += tensor.shape.numel();
    }
  }
};

Json value_json(const AttributeValue& value) {
  return std::visit([](const auto& v) { return Json(v); }, value);
}

std::string attribute_text(const std::string& name, const AttributeValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    if (text->size() <= 60 && text->find('\n') == std::string::npos) return *text;
    return fmt::format("text of {} lines; --attribute {} prints it",
                       std::count(text->begin(), text->end(), '\n') + (text->back() != '\n'), name);
  }
  return value_json(value).dump();
}

// A column of the table; numbers stand to the right.
struct Column {
  std::vector<std::string> cells;
  bool right = true;
};

std::string table_text(const std::vector<Column>& columns) {
  std::string text;
  std::vector<std::size_t> widths;
  for (const Column& column : columns) {
    std::size_t width = 0;
    for (const std::string& cell : column.cells) width = std::max(width, cell.size());
    widths.push_back(width);
  }
  for (std::size_t row = 0; row < columns.front().cells.size(); ++row) {
    std::string line = " ";
    for (std::size_t i = 0; i < columns.size(); ++i) {
      const std::string& cell = columns[i].cells[row];
      line += columns[i].right ? fmt::format(" {:>{}}", cell, widths[i])
                               : fmt::format(" {:<{}}", cell, widths[i]);
      line += " ";
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string tensors_text(const Inspection& inspection) {
  Column name{{"tensor"}, false}, dtype{{"dtype"}, false}, shape{{"shape"}, false};
  Column place{{inspection.whole ? "shards" : "first row"}};
  Column norm{{"norm"}}, min{{"min"}}, max{{"max"}}, bad{{"nan+inf"}};
  for (const InspectedTensor& tensor : inspection.tensors) {
    const Statistics& s = tensor.statistics;
    const auto number = [&](double value) {
      return s.finite() == 0 ? std::string("-") : fmt::format("{:.5g}", value);
    };
    name.cells.push_back(tensor.name);
    dtype.cells.emplace_back(name_of(tensor.dtype));
    shape.cells.push_back(to_string(tensor.shape));
    place.cells.push_back(std::to_string(inspection.whole ? tensor.shards : tensor.first_row));
    norm.cells.push_back(number(s.norm()));
    min.cells.push_back(number(s.min()));
    max.cells.push_back(number(s.max()));
    bad.cells.push_back(std::to_string(s.nan() + s.infinite()));
  }
  return table_text({name, dtype, shape, place, norm, min, max, bad});
}

}  // namespace

Json to_json(const Inspection& inspection) {
  Json json;
  json["path"] = inspection.path.string();
  json["kind"] = inspection.whole ? "checkpoint" : "shard";
  json["verified"] = inspection.verified;
  json["attributes"] = Json::object();
  for (const auto& [name, value] : inspection.attributes) {
    json["attributes"][name] = value_json(value);
  }
  json["files"] = Json::array();
  for (const auto& file : inspection.files) {
    json["files"].push_back(
        {{"file", file.file}, {"bytes", file.bytes}, {"xxh64", checksum_text(file.checksum)}});
  }
  json["tensors"] = Json::array();
  for (const InspectedTensor& tensor : inspection.tensors) {
    const Statistics& s = tensor.statistics;
    const auto number = [&](double value) { return s.finite() == 0 ? Json() : Json(value); };
    Json item{{"name", tensor.name},
              {"dtype", name_of(tensor.dtype)},
              {"shape", std::vector<std::int64_t>(tensor.shape.begin(), tensor.shape.end())}};
    if (inspection.whole) {
      item["shards"] = tensor.shards;
    } else {
      item["first_row"] = tensor.first_row;
    }
    item.update({{"norm", number(s.norm())},
                 {"mean", number(s.mean())},
                 {"min", number(s.min())},
                 {"max", number(s.max())},
                 {"zeros", s.zeros()},
                 {"nan", s.nan()},
                 {"infinite", s.infinite()}});
    json["tensors"].push_back(std::move(item));
  }
  const Totals totals(inspection);
  json["totals"] = {{"tensors", inspection.tensors.size()},
                    {"elements", totals.elements},
                    {"parameters", totals.parameters},
                    {"bytes", totals.bytes},
                    {"nan", totals.nan},
                    {"infinite", totals.infinite}};
  return json;
}

std::string to_text(const Inspection& inspection) {
  const Totals totals(inspection);
  std::string text = inspection.path.string() + "\n";
  if (!inspection.attributes.empty()) {
    Column name{{}, false}, value{{}, false};
    for (const auto& [key, content] : inspection.attributes) {
      name.cells.push_back(key);
      value.cells.push_back(attribute_text(key, content));
    }
    text += table_text({name, value});
  }
  text += fmt::format("\n{}\n", tensors_text(inspection));
  text += fmt::format("{} tensors, {} elements ({} of parameters), {}", inspection.tensors.size(),
                      totals.elements, totals.parameters, size_text(totals.bytes));
  if (inspection.whole) text += fmt::format(", in {} files", inspection.files.size());
  text += inspection.verified ? "; all checksums match\n" : "; checksums not compared (--verify)\n";
  if (totals.nan + totals.infinite > 0) {
    text += fmt::format("{} elements are NaN, {} are infinite\n", totals.nan, totals.infinite);
  }
  return text;
}

}  // namespace fulcrum::apps
