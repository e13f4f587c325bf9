#include <cmath>
#include <limits>

#include "framework/autograd/tape.h"
#include "framework/ops/router.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/framework/ops/routing_samples.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

namespace {

// Everything that route gives must agree; logits are f32.
void check_route(const Tensor& logits, const RouterOptions& options, const Tensor& bias = {}) {
  INFO(logits.dim(0) << " x " << logits.dim(1) << ", top " << options.top_k << ", sigmoid "
                     << options.sigmoid << ", renormalize " << options.renormalize << ", groups "
                     << options.groups << " top " << options.top_groups << ", capacity "
                     << options.capacity_factor);
  const auto routed = [&](const Tensor& x) {
    RouterOptions here = options;
    if (here.keep.defined()) here.keep = here.keep.to(x.device());
    return route(x, bias.defined() ? bias.to(x.device()) : bias, here);
  };
  const auto all = [&](const std::vector<Tensor>& x) {
    const Routing r = routed(x[0]);
    return std::vector{r.weights, r.scores, r.experts, r.counts, r.dropped};
  };
  const auto weights_only = [&](const std::vector<Tensor>& x) {
    return std::vector{routed(x[0]).weights};
  };
  const double tolerance = cuda_tolerance(DType::f32);
  const auto whole = cuda_errors(all, {logits}, DType::f32);
  CHECK(whole.outputs < tolerance);
  CHECK(whole.gradients < tolerance);
  CHECK(cuda_errors(weights_only, {logits}, DType::f32).gradients < tolerance);
}

RouterOptions top(std::int64_t k) {
  RouterOptions options;
  options.top_k = k;
  return options;
}

std::vector<std::int32_t> chosen(const Tensor& logits, const RouterOptions& options) {
  return route(logits, {}, options).experts.to(Device{}).to_vector<std::int32_t>();
}

}  // namespace

TEST_CASE("routing on CUDA equals that on the CPU", "[gpu][ops]") {
  for (const std::int64_t experts : {1, 5, 33, 64, 200, 512, 1000}) {
    for (const std::int64_t n : {1, 37, 1003}) {
      for (const bool sigmoid : {false, true}) {
        RouterOptions options = top(std::min<std::int64_t>(experts, 6));
        options.sigmoid = sigmoid;
        options.renormalize = sigmoid && experts > 1;  // else the gradient is 0
        options.route_scale = 1.7;
        check_route(separated_logits(n, experts, 1), options);
      }
    }
  }
  RouterOptions options = top(3);
  options.renormalize = true;
  check_route(separated_logits(40, 70, 1), options);
  check_route(separated_logits(40, 16, 2), top(16));  // every expert
  check_route(separated_logits(40, 500, 2), top(16));
  check_route(separated_logits(40, 32, 2), top(32));
  check_route(separated_logits(0, 8, 2), top(2));
}

TEST_CASE("a selection bias steers on CUDA as on the CPU", "[gpu][ops]") {
  for (const std::int64_t experts : {9, 64, 300}) {
    std::vector<float> values;  // further apart than scores
    for (std::int64_t e = 0; e < experts; ++e) values.push_back(static_cast<float>(e % 3));
    const Tensor bias = Tensor::from(values, {experts});
    for (const bool sigmoid : {false, true}) {
      RouterOptions options = top(5);
      options.sigmoid = sigmoid;
      check_route(separated_logits(130, experts, 3), options, bias);
    }
  }
}

TEST_CASE("groups limit tokens on CUDA as on the CPU", "[gpu][ops]") {
  struct Case {
    std::int64_t experts, groups, top_groups, k;
  };
  for (const Case& c : {Case{64, 8, 3, 6}, Case{96, 3, 2, 8}, Case{512, 64, 10, 16},
                        Case{20, 20, 7, 7}, Case{30, 2, 1, 15}, Case{12, 4, 4, 5}}) {
    for (const bool top2 : {false, true}) {
      RouterOptions options = top(c.k);
      options.sigmoid = top2;
      options.groups = c.groups;
      options.top_groups = c.top_groups;
      options.group_top2 = top2;
      check_route(random({211, c.experts}, 4), options);
    }
  }
}

TEST_CASE("ties and NaN choose on CUDA as on the CPU", "[gpu][ops]") {
  for (const bool sigmoid : {false, true}) {
    for (const std::int64_t experts : {7, 64, 130}) {
      RouterOptions options = top(4);
      options.sigmoid = sigmoid;
      check_route(coarse_logits(97, experts, 5), options);
      options.groups = experts == 7 ? 7 : experts / 2;
      options.top_groups = options.groups - 1;
      check_route(coarse_logits(97, experts, 6), options);
    }
  }
  const Device device = cuda_device();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor logits = Tensor::from<float>(
      {1,        nan, 3, 3,         0, nan,       nan,       nan,       nan,       nan,
       infinity, 1,   2, -infinity, 0, -infinity, -infinity, -infinity, -infinity, -infinity},
      {4, 5});
  for (const bool sigmoid : {false, true}) {
    RouterOptions options = top(3);
    options.sigmoid = sigmoid;
    CHECK(chosen(logits.to(device), options) == chosen(logits, options));
  }
}

TEST_CASE("capacity drops slots on CUDA as on the CPU", "[gpu][ops]") {
  std::vector<std::uint8_t> keep;
  for (int t = 0; t < 300; ++t) keep.push_back(t % 7 == 0 ? 1 : 0);
  for (const std::int64_t groups : {1, 4, 16}) {
    for (const double factor : {0.3, 0.8, 3.0}) {
      for (const bool sigmoid : {false, true}) {
        RouterOptions options = top(3);
        options.sigmoid = sigmoid;
        options.renormalize = sigmoid;
        options.groups = groups;
        options.top_groups = groups;
        options.capacity_factor = factor;
        check_route(random({300, 16}, 7), options);
        options.keep = Tensor::from(keep, {300});
        check_route(random({300, 16}, 7), options);
        // equal scores: the earlier slot stays
        if (sigmoid) check_route(coarse_logits(300, 16, 8), options);
      }
    }
  }
}

TEST_CASE("routing on CUDA gives the same bits again", "[gpu][ops]") {
  const Device device = cuda_device();
  const Tensor logits = random({5000, 64}, 9).to(DType::f32).to(device);
  RouterOptions options = top(6);
  options.capacity_factor = 0.9;
  options.groups = 8;
  options.top_groups = 4;
  const auto run = [&] {
    const Tensor leaf = make_leaf(logits);
    Tape tape;
    Routing r;
    {
      const Tape::Scope recording(tape);
      r = route(leaf, {}, options);
    }
    tape.backward({r.weights, r.scores}, {random({5000, 6}, 1).to(DType::f32).to(device), logits});
    std::vector<float> bits = leaf.grad().to(Device{}).to_vector<float>();
    for (const float w : r.weights.to(Device{}).to_vector<float>()) bits.push_back(w);
    for (const std::int32_t e : r.experts.to(Device{}).to_vector<std::int32_t>()) {
      bits.push_back(static_cast<float>(e));
    }
    return bits;
  };
  CHECK(run() == run());
}

TEST_CASE("routing on CUDA refuses what it has no kernel for", "[gpu][ops]") {
  const Device device = cuda_device();
  const Tensor wide = Tensor::zeros({2, 1025}, DType::f32, device);
  CHECK_THROWS_AS(route(wide, {}, top(1)), ArgumentError);
  CHECK_THROWS_AS(route(Tensor::zeros({2, 64}, DType::f32, device), {}, top(33)), ArgumentError);
  CHECK_THROWS_AS(
      route(Tensor::zeros({2, 4}, DType::f32, device), Tensor::zeros({4}, DType::f32), top(1)),
      ArgumentError);
}
