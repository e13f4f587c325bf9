#include "framework/config/value.h"

#include "framework/config/suggest.h"
#include "framework/core/error.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::config;
using testing::message_of;

TEST_CASE("a tree keeps order, quotes and positions", "[unit][config]") {
  const Value root = parse_yaml("b: 1\na:\n  - x\n  - \"2\"\nnothing: ~\n", "f.yaml");
  REQUIRE(root.entries.size() == 3);
  CHECK(root.entries[0].key == "b");
  CHECK(root.find("b")->position.text() == "f.yaml:1:4");
  CHECK(root.entries[1].position.text() == "f.yaml:2:1");
  CHECK(root.find("a")->items[1].position.text() == "f.yaml:4:5");
  CHECK(root.find("a")->items[1].quoted);
  CHECK_FALSE(root.find("a")->items[0].quoted);
  CHECK(root.find("nothing")->kind == Value::Kind::null);
  CHECK(root.find("c") == nullptr);
  CHECK(parse_yaml("# nothing but a comment\n", "f.yaml").kind == Value::Kind::map);
}

TEST_CASE("broken YAML is named by its place", "[unit][config]") {
  const auto message = [](const char* text) {
    return message_of<UserError>([&] { parse_yaml(text, "f.yaml"); });
  };
  CHECK(message("a: 1\nb:\n  c: 1\n  c: 2\n") ==
        "f.yaml:4:3: c: duplicate key; the first stands at f.yaml:3:3");
  CHECK(message("a: [1, 2\n").find("f.yaml:2:1: not valid YAML: ") == 0);
  CHECK(message("a: 1\n---\nb: 2\n").find("f.yaml:3:1: one document is allowed") == 0);
  CHECK(message("[a, b]: 1\n") == "f.yaml:1:1: a key must be a name");
  CHECK(message("a: &x [*x]\n").find("nested more than") != std::string::npos);
  std::string laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    laughs += fmt::format("a{0}: &a{0} [", i);
    for (int k = 0; k < 10; ++k) laughs += fmt::format("*a{}, ", i - 1);
    laughs += "]\n";
  }
  CHECK(message(laughs.c_str()).find("more than 1048576 values") != std::string::npos);
}

TEST_CASE("maps merge deeply, lists and scalars are replaced", "[unit][config]") {
  const Value merged = merge(parse_yaml("m: {a: 1, b: [1, 2]}\nkeep: 5\n", "base"),
                             parse_yaml("m: {b: [3], c: 4}\n", "over"));
  CHECK(emit_yaml(merged) == "m:\n  a: 1\n  b: [3]\n  c: 4\nkeep: 5\n");
  CHECK(merged.find("m")->find("a")->position.text() == "base:1:8");
  CHECK(merged.find("m")->find("b")->position.text() == "over:1:8");
  CHECK(emit_yaml(merge(parse_yaml("m: {a: 1}", "x"), parse_yaml("m: ~", "y"))) == "m: null\n");
}

TEST_CASE("emitted YAML reads back the same", "[unit][config]") {
  Value root = Value::map();
  for (const char* text : {"plain", "two words", "", "true", "null", "12", "a: b", "quote\"\\",
                           "line\nbreak\t", "-x", "/a/b.c", "ümlaut", "#", "1e3"})
    root.put(fmt::format("k{}", root.entries.size()), Value::scalar(text, true));
  root.put("empty_list", Value::sequence());
  root.put("empty_map", Value::map());
  const Value again = parse_yaml(emit_yaml(root), "x");
  REQUIRE(again.entries.size() == root.entries.size());
  for (std::size_t i = 0; i < root.entries.size(); ++i) {
    CHECK(again.entries[i].value.kind == root.entries[i].value.kind);
    CHECK(again.entries[i].value.text == root.entries[i].value.text);
  }
  CHECK(emit_yaml(again) == emit_yaml(root));
}

TEST_CASE("the nearest name needs to be near", "[unit][config]") {
  CHECK(edit_distance("", "abc") == 3);
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("layesr", "layers") == 1);
  CHECK(nearest("layesr", {"width", "layers", "layer"}) == "layers");
  CHECK(nearest("zzz", {"width", "layers"}).empty());
  CHECK(suggestion("zzz", {"width", "layers"}) == "; allowed: width, layers");
  CHECK(suggestion("with", {"width", "layers"}) == "; did you mean width");
}
