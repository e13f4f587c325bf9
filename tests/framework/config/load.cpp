#include "framework/config/load.h"

#include "framework/core/error.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::config;
using testing::message_of;

TEST_CASE("extends layers files relative to the file that names them", "[unit][config]") {
  const testing::TemporaryFolder folder;
  folder.write("base/one.yaml", "extends: deeper/zero.yaml\nm: {a: 1, b: 1}\n");
  folder.write("base/deeper/zero.yaml", "m: {z: 0, a: 0}\n");
  folder.write("two.yaml", "m: {b: 2, c: 2}\n");
  const auto top = folder.write("top.yaml", "extends: [base/one.yaml, two.yaml]\nm:\n  c: 3\n");
  const Value root = load(top, {"m.d=4", "new.deep.key=[1, x]", "m.a={q: 1}"});
  CHECK(emit_yaml(root) ==
        "m:\n  z: 0\n  a:\n    q: 1\n  b: 2\n  c: 3\n  d: 4\nnew:\n  deep:\n    key: [1, x]\n");
  CHECK(root.find("m")->find("b")->position.text() ==
        (folder.path() / "two.yaml").string() + ":1:8");
  CHECK(root.find("m")->find("c")->position.text() == top.string() + ":3:6");
  CHECK(root.find("m")->find("d")->position.text() == "--set");
}

TEST_CASE("a diamond of extends is allowed, a cycle is not", "[unit][config]") {
  const testing::TemporaryFolder folder;
  folder.write("base.yaml", "a: 1\n");
  folder.write("left.yaml", "extends: base.yaml\nb: 1\n");
  folder.write("right.yaml", "extends: base.yaml\nc: 1\n");
  CHECK(emit_yaml(load_file(folder.write("d.yaml", "extends: [left.yaml, right.yaml]\n"))) ==
        "a: 1\nb: 1\nc: 1\n");
  folder.write("x.yaml", "extends: y.yaml\n");
  folder.write("y.yaml", "\nextends: x.yaml\n");
  const auto message = message_of<UserError>([&] { load_file(folder.path() / "x.yaml"); });
  CHECK(
      message.find(
          "y.yaml:2:10: extends: a file may not extend itself; found x.yaml -> y.yaml -> x.yaml") !=
      std::string::npos);
}

TEST_CASE("files that cannot be read are named together with who wants them", "[unit][config]") {
  const testing::TemporaryFolder folder;
  const auto missing = folder.path() / "none.yaml";
  CHECK(message_of<UserError>([&] { load_file(missing); }) ==
        missing.string() + ": cannot be read: No such file or directory");
  CHECK(message_of<UserError>([&] { load_file(folder.path()); }).find("is a directory") !=
        std::string::npos);
  const auto top = folder.write("top.yaml", "extends: none.yaml\n");
  CHECK(message_of<UserError>([&] { load_file(top); }) ==
        top.string() + ":1:10: extends: " + missing.string() +
            ": cannot be read: No such file or directory");
  const auto wrong = folder.write("wrong.yaml", "extends: {a: 1}\n");
  CHECK(message_of<UserError>([&] { load_file(wrong); }).find("found a map") != std::string::npos);
  const auto list = folder.write("list.yaml", "- 1\n");
  CHECK(message_of<UserError>([&] { load_file(list); }) ==
        list.string() + ":1:1: expects a map of keys; found a list");
}

TEST_CASE("wrong overrides say what is expected", "[unit][config]") {
  for (const char* wrong : {"steps", "=3", "a..b=1", ".a=1", "a.=1"}) {
    Value root = Value::map();
    CHECK(message_of<UserError>([&] {
            apply_override(root, wrong);
          }).find("--set: expects key.path=value") == 0);
  }
  Value root = parse_yaml("a: 1\n", "f");
  CHECK(message_of<UserError>([&] { apply_override(root, "a.b=1"); }) ==
        "--set: a: a map is expected before .b; found 1");
  CHECK(message_of<UserError>([&] {
          apply_override(root, "a=[1");
        }).find("--set: not valid YAML") == 0);
  apply_override(root, "b=");
  CHECK(root.find("b")->kind == Value::Kind::null);
}

TEST_CASE("the hash of a text is that of FNV-1a", "[unit][config]") {
  CHECK(hash_text("") == "6c62272e07bb014262b821756295c58d");
  CHECK(hash_text("foobar") == "343e1662793c64bf6f0d3597ba446f18");
}
