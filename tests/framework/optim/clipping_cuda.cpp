#include <cmath>
#include <limits>

#include "framework/optim/clipping.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/framework/optim/reference.h"

using namespace fulcrum;
using namespace fulcrum::testing;

TEST_CASE("square sums on CUDA equal those on the CPU, with the same bits in every run",
          "[gpu][optim]") {
  const Device device = cuda_device();
  ParameterStore host(7, DType::f32);
  ParameterStore store(7, ParameterStore::Placement{DType::bf16, device});
  const auto fill = [](ParameterStore& s) {
    std::vector<Parameter*> list;
    const auto create = [&](ParameterKind kind, const Shape& shape) {
      list.push_back(
          &s.create("p" + std::to_string(list.size()), kind, shape, Initializer::zeros()));
    };
    create(ParameterKind::matrix, {1031, 517});
    create(ParameterKind::head, {64, 512});
    create(ParameterKind::expert, {0, 3, 4});
    create(ParameterKind::vector, {1});
    create(ParameterKind::matrix, {211, 163});
    create(ParameterKind::matrix, {50, 50});
    for (int i = 0; i < 1300; ++i) create(ParameterKind::vector, {1 + i % 13});
    for (std::size_t i = 0; i < list.size(); ++i) {
      set_gradient(*list[i], random_gradient(*list[i], i, 1e-3).to(DType::f32));
    }
    keep_master_rows(*list[4], 5, 101);
    list[5]->slot().fresh = true;  // counts as zero
    return list;
  };
  const std::vector<Parameter*> expected = fill(host);
  const std::vector<Parameter*> parameters = fill(store);
  const Tensor sum = gradient_square_sum(parameters, device);
  CHECK(sum.device() == device);
  CHECK(sum.dtype() == DType::f64);
  CHECK(sum.item() == Approx(gradient_square_sum(expected, Device{}).item()).epsilon(1e-12));
  CHECK(gradient_square_sum(parameters, device).item() == sum.item());
  CHECK(gradient_square_sum({}, device).item() == 0.0);

  const double nan = std::numeric_limits<double>::quiet_NaN();
  set_gradient(*parameters[3], Tensor::full({1}, nan, DType::f32));
  CHECK(std::isnan(gradient_square_sum(parameters, device).item()));
}
