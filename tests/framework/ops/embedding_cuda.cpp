#include <cmath>
#include <cstring>

#include "framework/autograd/tape.h"
#include "framework/ops/elementwise.h"
#include "framework/ops/embedding.h"
#include "tests/catch.h"
#include "tests/cuda_check.h"
#include "tests/gradient_check.h"

using namespace fulcrum;
using namespace fulcrum::ops;
using namespace fulcrum::testing;

namespace {

enum class Ids { one, ascending, mixed, skewed };

Tensor ids_of(Ids kind, std::int64_t n, std::int64_t vocabulary) {
  const Tensor noise = random({n}, 7);
  Tensor ids = Tensor::empty({n}, DType::i32);
  for (std::int64_t t = 0; t < n; ++t) {
    std::int64_t id = 0;
    const double r = std::abs(noise.data<double>()[t]);
    if (kind == Ids::one) id = vocabulary / 2;
    if (kind == Ids::ascending) id = t * vocabulary / n;
    if (kind == Ids::mixed) id = static_cast<std::int64_t>(r * 1e6) % vocabulary;
    if (kind == Ids::skewed) {
      id = std::min(vocabulary - 1, static_cast<std::int64_t>(std::exp(r * 2.0) * 0.02 *
                                                              static_cast<double>(vocabulary)));
    }
    ids.data<std::int32_t>()[t] = static_cast<std::int32_t>(id);
  }
  return ids;
}

}  // namespace

TEST_CASE("embedding on CUDA equals that on the CPU", "[gpu][ops]") {
  struct Size {
    std::int64_t vocabulary, width, n;
  };
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const auto& [vocabulary, width, n] :
         {Size{1, 1, 1}, Size{301, 8, 33}, Size{700, 67, 1500}, Size{1, 264, 1500},
          Size{301, 264, 700}, Size{41, 2056, 100}, Size{20000, 68, 3000}}) {
      for (const Ids kind : {Ids::one, Ids::ascending, Ids::mixed, Ids::skewed}) {
        INFO(name_of(dtype) << " [" << vocabulary << ", " << width << "], " << n << " tokens, kind "
                            << static_cast<int>(kind));
        const CudaErrors errors = cuda_errors(
            [](const auto& x) { return std::vector{embedding(x[0], x[1])}; },
            {weight(random({vocabulary, width}, 1)), ids_of(kind, n, vocabulary)}, dtype);
        CHECK(errors.outputs == 0.0);
        // The gradient of a bf16 weight is f32 too.
        CHECK(errors.gradients < 1e-5);
      }
    }
  }
}

TEST_CASE("embedding on CUDA adds to a gradient", "[gpu][ops]") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const CudaErrors errors = cuda_errors(
        [](const auto& x) {
          return std::vector{embedding(x[0], x[1]), embedding(x[0], x[2])};
        },
        {weight(random({301, 72}, 1)), ids_of(Ids::skewed, 1000, 301), ids_of(Ids::mixed, 77, 301)},
        dtype);
    CHECK(errors.outputs == 0.0);
    CHECK(errors.gradients < 1e-5);
  }
}

TEST_CASE("embedding of no tokens on CUDA", "[gpu][ops]") {
  const CudaErrors errors =
      cuda_errors([](const auto& x) { return std::vector{embedding(x[0], x[1])}; },
                  {weight(random({5, 8}, 1)), Tensor::empty({0}, DType::i32)}, DType::bf16);
  CHECK(errors.outputs == 0.0);
  // Nothing but zeros, where a relative error is not defined.
  const Tensor w = make_leaf(Tensor::full({5, 8}, 1.0, DType::f32, cuda_device()));
  Tape tape;
  Tensor y;
  {
    const Tape::Scope recording(tape);
    y = embedding(w, Tensor::empty({0}, DType::i32, w.device()));
  }
  tape.backward(y, Tensor::empty_like(y));
  CHECK(w.grad().to(Device{}).to_vector<float>() == std::vector<float>(40, 0.0f));
}

TEST_CASE("the gradient of embedding on CUDA repeats bit for bit", "[gpu][ops]") {
  const Device device = cuda_device();
  const Tensor ids = ids_of(Ids::skewed, 5000, 700).to(device);
  const Tensor w = random({700, 264}, 1).to(DType::bf16).to(device);
  const Tensor g = random({5000, 264}, 2).to(DType::bf16).to(device);
  std::vector<Tensor> gradients;
  for (int i = 0; i < 2; ++i) {
    const Tensor leaf = make_leaf(w);
    Tape tape;
    Tensor y;
    {
      const Tape::Scope recording(tape);
      y = embedding(leaf, ids);
    }
    tape.backward(y, g);
    gradients.push_back(leaf.grad().to(Device{}));
  }
  CHECK(std::memcmp(gradients[0].raw(), gradients[1].raw(),
                    static_cast<std::size_t>(gradients[0].bytes())) == 0);
}
