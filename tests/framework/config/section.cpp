#include "framework/config/section.h"

#include <fmt/format.h>

#include <cmath>

#include "framework/config/scalar.h"
#include "framework/core/error.h"
#include "tests/catch.h"
#include "tests/temporary_folder.h"

using namespace fulcrum;
using namespace fulcrum::config;
using testing::message_of;

namespace {

enum class Coat { short_hair, long_hair };

struct Dog {
  std::string name;
  std::int64_t legs = 4;
  double speed = 1.5;
  bool good = true;
  std::uint64_t chip = 0;
  Coat coat = Coat::short_hair;
  std::optional<double> rho;
  std::vector<std::int64_t> walks = {1, 2};
  struct Kennel {
    double width = 1.0;
  } kennel;
  struct Toy {
    int age = 0;
  };
  std::optional<Toy> toy;
};

void bind(Section& s, Dog& dog) {
  s.required("name", dog.name);
  s.optional("legs", dog.legs, between(0, 4));
  s.optional("speed", dog.speed, above(0));
  s.optional("good", dog.good);
  s.optional("chip", dog.chip);
  s.choice("coat", dog.coat, {{"short", Coat::short_hair}, {"long", Coat::long_hair}});
  s.optional("rho", dog.rho, {.min = 0, .max = 1, .open_min = true});
  s.optional("walks", dog.walks, at_least(0));
  s.section("kennel", [&](Section& k) { k.optional("width", dog.kennel.width, at_least(0)); });
  s.optional_section<Dog::Toy>("toy", dog.toy,
                               [](Section& t, Dog::Toy& toy) { t.required("age", toy.age); });
  s.close();
  s.rule(dog.legs % 2 == 0, "legs", fmt::format("must be even; found {}", dog.legs));
  s.rule(dog.kennel.width < 9, "kennel.width", "too wide");
}

Dog parse(const std::string& text) {
  return read<Dog>(parse_yaml(text, "dog.yaml"), [](Section& s, Dog& d) { bind(s, d); });
}

std::string problem(const std::string& text) {
  return message_of<UserError>([&] { parse(text); });
}

std::string text_of(const Dog& dog) {
  return emit_yaml(write(dog, [](Section& s, Dog& d) { bind(s, d); }));
}

}  // namespace

TEST_CASE("keys fill the struct, absent keys keep its defaults", "[unit][config]") {
  const Dog dog =
      parse("name: Rex\nspeed: 1e-3\ncoat: long\nrho: 0.5\nwalks: []\ntoy: {age: 3}\nlegs: 0x2\n");
  CHECK(dog.name == "Rex");
  CHECK(dog.speed == 1e-3);
  CHECK(dog.legs == 2);
  CHECK(dog.coat == Coat::long_hair);
  CHECK(dog.rho == 0.5);
  CHECK(dog.walks.empty());
  CHECK(dog.toy->age == 3);
  CHECK(dog.good);
  CHECK_FALSE(parse("name: 007\n").rho.has_value());
  CHECK(parse("name: 007\ntoy: null\n").name == "007");
}

TEST_CASE("each broken rule names place, key, rule and finding", "[unit][config]") {
  CHECK(problem("nmae: Rex\n") == "dog.yaml:1:1: nmae: unknown key; did you mean name");
  CHECK(problem("name: Rex\nkennel:\n  widht: 3\n") ==
        "dog.yaml:3:3: kennel.widht: unknown key; did you mean width");
  CHECK(problem("legs: 4\n") == "dog.yaml:1:1: name: a required key is missing");
  CHECK(problem("name: Rex\ntoy: {}\n") == "dog.yaml:2:6: toy.age: a required key is missing");
  CHECK(problem("name: Rex\nlegs: four\n") == "dog.yaml:2:7: legs: expects an integer; found four");
  CHECK(problem("name: Rex\nlegs: 4.0\n") ==
        "dog.yaml:2:7: legs: expects an integer; found 4.0; write 4");
  CHECK(problem("name: Rex\nlegs: 1_0\n") ==
        "dog.yaml:2:7: legs: expects an integer; found 1_0; write 10");
  CHECK(problem("name: Rex\nlegs: \"4\"\n") ==
        "dog.yaml:2:7: legs: expects an integer; found \"4\"");
  CHECK(problem("name: Rex\nlegs: 6\n") ==
        "dog.yaml:2:7: legs: out of range; found 6; allowed: [0, 4]");
  CHECK(problem("name: Rex\nspeed: 0\n") ==
        "dog.yaml:2:8: speed: out of range; found 0; allowed: above 0");
  CHECK(problem("name: Rex\nspeed: .nan\n").find("out of range") != std::string::npos);
  CHECK(problem("name: Rex\nspeed: nan\n") == "dog.yaml:2:8: speed: expects a number; found nan");
  CHECK(problem("name: Rex\nrho: 0\n") ==
        "dog.yaml:2:6: rho: out of range; found 0; allowed: (0, 1]");
  CHECK(problem("name: Rex\ngood: yes\n") ==
        "dog.yaml:2:7: good: expects true or false; found yes; write true");
  CHECK(problem("name: Rex\nchip: -1\n") ==
        "dog.yaml:2:7: chip: expects an integer of at least 0; found -1");
  CHECK(problem("name: [a]\n") == "dog.yaml:1:7: name: expects text; found a list");
  CHECK(problem("name:\n") == "dog.yaml:1:1: name: expects text; found nothing");
  CHECK(problem("name: Rex\nwalks: 3\n") ==
        "dog.yaml:2:8: walks: expects a list, each element an integer; found 3");
  CHECK(problem("name: Rex\nwalks: [1, x]\n") ==
        "dog.yaml:2:8: walks: element 1: expects an integer; found x");
  CHECK(problem("name: Rex\ncoat: lnog\n") ==
        "dog.yaml:2:7: coat: unknown choice; found lnog; allowed: short, long; did you mean long");
  CHECK(problem("name: Rex\nkennel: big\n") ==
        "dog.yaml:2:9: kennel: expects a map of keys; found big");
  CHECK(problem("name: Rex\nlegs: 3\n") == "dog.yaml:2:7: legs: must be even; found 3");
  CHECK(problem("name: Rex\nkennel: {width: 10}\n") == "dog.yaml:2:17: kennel.width: too wide");
  CHECK(problem("name: Rex\nlegs: 99999999999999999999\n").find("expects an integer") !=
        std::string::npos);
}

TEST_CASE("what is written has every key and reads back the same", "[unit][config]") {
  Dog dog;
  dog.name = "Rex the 2nd";
  dog.speed = 0.1 + 0.2;
  dog.chip = 18446744073709551615u;
  const std::string text = text_of(dog);
  CHECK(text ==
        "name: \"Rex the 2nd\"\nlegs: 4\nspeed: 0.30000000000000004\ngood: true\n"
        "chip: 18446744073709551615\ncoat: short\nrho: null\nwalks: [1, 2]\nkennel:\n  width: 1.0\n"
        "toy: null\n");
  CHECK(text_of(parse(text)) == text);
  dog.toy.emplace().age = 2;
  dog.rho = 1e-8;
  CHECK(text_of(parse(text_of(dog))) == text_of(dog));
  CHECK(parse(text_of(dog)).rho == 1e-8);
}

TEST_CASE("writing checks the same rules, without a place", "[unit][config]") {
  Dog dog;
  dog.legs = 3;
  CHECK(message_of<UserError>([&] { text_of(dog); }) == "legs: must be even; found 3");
  dog.legs = 5;
  CHECK(message_of<UserError>([&] { text_of(dog); }) ==
        "legs: out of range; found 5; allowed: [0, 4]");
}

TEST_CASE("scalars are those of YAML 1.2", "[unit][config]") {
  const auto real = [](const char* text) {
    double x = -7;
    return parse_scalar(Value::scalar(text), x) ? x : -7;
  };
  CHECK(real("1e-3") == 1e-3);
  CHECK(real("+.5") == 0.5);
  CHECK(real("-2.") == -2.0);
  CHECK(std::isinf(real("-.inf")));
  for (const char* text : {"", "inf", "0x", "1 2", "1,5", "--1", "1k", "e3"})
    CHECK(real(text) == -7);
  std::int64_t n = 0;
  CHECK((parse_scalar(Value::scalar("0o17"), n) && n == 15));
  CHECK((parse_scalar(Value::scalar("-9223372036854775808"), n) && n < 0));
  CHECK_FALSE(parse_scalar(Value::scalar("9223372036854775808"), n));
  CHECK_FALSE(parse_scalar(Value::scalar("0x-1"), n));
  CHECK_FALSE(parse_scalar(Value::scalar("+-1"), n));
}
