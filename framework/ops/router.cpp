#include "framework/ops/router.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "framework/autograd/tape.h"
#include "framework/core/vector_math.h"
#include "framework/ops/dispatch.h"
#include "framework/ops/router_cuda.h"
#include "framework/ops/top_k.h"

namespace fulcrum::ops {
namespace {

constexpr std::int64_t kParallel = 8192;  // logits from which threads pay
constexpr double kSumEps = 1e-20;

template <class T>
void softmax_row(const T* x, std::int64_t n, T* y) {
  T top = x[0];
#pragma omp simd reduction(max : top)
  for (std::int64_t i = 1; i < n; ++i) top = x[i] > top ? x[i] : top;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (std::int64_t i = 0; i < n; ++i) {
    y[i] = fast_exp(x[i] - top);
    sum += y[i];
  }
  const T scale = T{1} / sum;
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] *= scale;
}

template <class T>
void sigmoid_row(const T* x, std::int64_t n, T* y) {
#pragma omp simd
  for (std::int64_t i = 0; i < n; ++i) y[i] = fast_sigmoid(x[i]);
}

// Scratch of one thread while it selects.
template <class T>
struct Selector {
  Selector(std::int64_t experts, const RouterOptions& options)
      : options(options),
        experts(experts),
        per_group(experts / options.groups),
        choice(experts),
        best(std::max(options.top_k, options.top_groups)),
        best_groups(options.top_groups),
        open(options.groups, 1) {}

  void select(const T* scores, const float* bias, std::int32_t* ids) {
    for (std::int64_t e = 0; e < experts; ++e) {
      choice[e] = bias != nullptr ? scores[e] + static_cast<T>(bias[e]) : scores[e];
    }
    if (options.top_groups < options.groups) open_groups();
    TopK<T> top(options.top_k, best.data(), ids);
    for (std::int64_t g = 0; g < options.groups; ++g) {
      if (open[g] == 0) continue;
      for (std::int64_t e = g * per_group; e < (g + 1) * per_group; ++e) top.offer(choice[e], e);
    }
  }

 private:
  T group_worth(std::int64_t group) const {
    T first = -std::numeric_limits<T>::infinity();
    T second = first;
    for (std::int64_t e = group * per_group; e < (group + 1) * per_group; ++e) {
      if (choice[e] > first) {
        second = first;
        first = choice[e];
      } else if (choice[e] > second) {
        second = choice[e];
      }
    }
    return options.group_top2 && per_group > 1 ? first + second : first;
  }

  void open_groups() {
    TopK<T> top(options.top_groups, best.data(), best_groups.data());
    for (std::int64_t g = 0; g < options.groups; ++g) top.offer(group_worth(g), g);
    std::fill(open.begin(), open.end(), 0);
    for (const std::int32_t g : best_groups) open[g] = 1;
  }

  const RouterOptions& options;
  std::int64_t experts;
  std::int64_t per_group;
  std::vector<T> choice;
  std::vector<T> best;
  std::vector<std::int32_t> best_groups;
  std::vector<char> open;
};

// Scores, selection and weights of every token.
template <class T>
void route_tokens(const Tensor& logits, const float* bias, const RouterOptions& options,
                  const Tensor& scores, const Tensor& selected, const Tensor& weights) {
  const std::int64_t n = logits.dim(0);
  const std::int64_t experts = logits.dim(1);
  const std::int64_t k = options.top_k;
  const T* x = logits.data<T>();
  T* s = scores.data<T>();
  T* w = weights.data<T>();
  std::int32_t* ids = selected.data<std::int32_t>();
#pragma omp parallel if (n * experts > kParallel)
  {
    Selector<T> selector(experts, options);
#pragma omp for schedule(static)
    for (std::int64_t t = 0; t < n; ++t) {
      T* row = s + t * experts;
      if (options.sigmoid) {
        sigmoid_row(x + t * experts, experts, row);
      } else {
        softmax_row(x + t * experts, experts, row);
      }
      selector.select(row, bias, ids + t * k);
      T factor = static_cast<T>(options.route_scale);
      if (options.renormalize) {
        T sum = static_cast<T>(kSumEps);
        for (std::int64_t j = 0; j < k; ++j) sum += row[ids[t * k + j]];
        factor /= sum;
      }
      for (std::int64_t j = 0; j < k; ++j) w[t * k + j] = factor * row[ids[t * k + j]];
    }
  }
}

// Slots that a group takes.
std::int64_t capacity_of_group(std::int64_t slots, const RouterOptions& options) {
  return static_cast<std::int64_t>(std::ceil(options.capacity_factor * static_cast<double>(slots) /
                                             static_cast<double>(options.groups)));
}

// Marks the slots beyond each group's capacity; returns their number.
template <class T>
std::int64_t drop_lowest(const Tensor& scores, const Tensor& selected, std::int64_t capacity,
                         const RouterOptions& options, const Tensor& experts,
                         const Tensor& weights) {
  const std::int64_t count = scores.dim(1);
  const std::int64_t per_group = count / options.groups;
  const std::int64_t slots = selected.numel();
  const std::int32_t* id = selected.data<std::int32_t>();
  const T* s = scores.data<T>();
  const auto affinity = [&](std::int64_t slot) {
    return s[slot / options.top_k * count + id[slot]];
  };

  std::vector<std::vector<std::int64_t>> members(static_cast<std::size_t>(options.groups));
  for (std::int64_t i = 0; i < slots; ++i) members[id[i] / per_group].push_back(i);
  std::int64_t dropped = 0;
  const auto kept = [&, keep = options.keep.defined() ? options.keep.data<std::uint8_t>()
                                                      : nullptr](std::int64_t slot) {
    return keep != nullptr && keep[slot / options.top_k] != 0;
  };
  for (auto& group : members) {
    const auto free = std::stable_partition(group.begin(), group.end(), kept);
    if (group.end() - group.begin() <= capacity) continue;
    const auto limit = std::max(free, group.begin() + capacity);
    std::nth_element(free, limit, group.end(), [&](std::int64_t a, std::int64_t b) {
      const T p = affinity(a);
      const T q = affinity(b);
      return p > q || (p == q && a < b);
    });
    for (auto it = limit; it != group.end(); ++it) {
      experts.data<std::int32_t>()[*it] = -1;
      weights.data<T>()[*it] = 0;
      ++dropped;
    }
  }
  return dropped;
}

// dlogits (+)= ∂(weights, scores)/∂logits. dw and ds may be undefined.
template <class T>
void route_backward(const Tensor& scores, const Tensor& selected, const Tensor& experts,
                    const Tensor& dw, const Tensor& ds, const RouterOptions& options,
                    const Tensor& dx, bool add) {
  const std::int64_t n = scores.dim(0);
  const std::int64_t count = scores.dim(1);
  const std::int64_t k = options.top_k;
  const T* s = scores.data<T>();
  const std::int32_t* ids = selected.data<std::int32_t>();
  const std::int32_t* kept = experts.data<std::int32_t>();
  const T* gw = dw.defined() ? dw.data<T>() : nullptr;
  const T* gs = ds.defined() ? ds.data<T>() : nullptr;
  T* out = dx.data<T>();
#pragma omp parallel if (n * count > kParallel)
  {
    std::vector<T> g(count);
#pragma omp for schedule(static)
    for (std::int64_t t = 0; t < n; ++t) {
      const T* row = s + t * count;
      if (gs != nullptr) {
        std::copy_n(gs + t * count, count, g.begin());
      } else {
        std::fill(g.begin(), g.end(), T{0});
      }
      if (gw != nullptr) {
        T factor = static_cast<T>(options.route_scale);
        T shared = 0;  // the part every selected score gets through the sum
        if (options.renormalize) {
          T sum = static_cast<T>(kSumEps);
          for (std::int64_t j = 0; j < k; ++j) sum += row[ids[t * k + j]];
          factor /= sum;
          for (std::int64_t j = 0; j < k; ++j) {
            if (kept[t * k + j] >= 0) shared -= gw[t * k + j] * factor * row[ids[t * k + j]] / sum;
          }
        }
        for (std::int64_t j = 0; j < k; ++j) {
          g[ids[t * k + j]] += shared + (kept[t * k + j] >= 0 ? factor * gw[t * k + j] : T{0});
        }
      }
      T mean = 0;
      if (!options.sigmoid) {
#pragma omp simd reduction(+ : mean)
        for (std::int64_t e = 0; e < count; ++e) mean += row[e] * g[e];
      }
      T* target = out + t * count;
      for (std::int64_t e = 0; e < count; ++e) {
        const T d = row[e] * (options.sigmoid ? (T{1} - row[e]) * g[e] : g[e] - mean);
        target[e] = add ? target[e] + d : d;
      }
    }
  }
}

void require_options(const Tensor& logits, const Tensor& bias, const RouterOptions& o) {
  FULCRUM_REQUIRE(logits.rank() == 2 && logits.dim(1) >= 1,
                  "route: logits must be [n, experts]; got {}", logits.shape());
  const std::int64_t experts = logits.dim(1);
  FULCRUM_REQUIRE(
      !bias.defined() || (bias.dtype() == DType::f32 && bias.shape() == Shape{experts} &&
                          bias.device() == logits.device()),
      "route: bias must be f32 [{}] on {}; got {} {} on {}", experts, logits.device(), bias.dtype(),
      bias.shape(), bias.device());
  FULCRUM_REQUIRE(o.top_k >= 1 && o.top_k <= experts, "route: top_k must lie in [1, {}]; got {}",
                  experts, o.top_k);
  FULCRUM_REQUIRE(o.groups >= 1 && experts % o.groups == 0,
                  "route: groups must divide the number of experts; got {} groups, logits {}",
                  o.groups, logits.shape());
  FULCRUM_REQUIRE(
      o.top_groups >= 1 && o.top_groups <= o.groups &&
          o.top_groups * (experts / o.groups) >= o.top_k,
      "route: top_groups must lie in [1, {}] and hold top_k = {} experts; got {} groups of {}",
      o.groups, o.top_k, o.top_groups, experts / o.groups);
  FULCRUM_REQUIRE(
      !o.keep.defined() || (o.keep.dtype() == DType::u8 && o.keep.shape() == Shape{logits.dim(0)}),
      "route: keep must be u8 [{}]; got {} {}", logits.dim(0), o.keep.dtype(), o.keep.shape());
  FULCRUM_REQUIRE(o.capacity_factor >= 0.0, "route: capacity_factor must not be negative; got {}",
                  o.capacity_factor);
}

}  // namespace

Routing route(const Tensor& logits, const Tensor& bias, const RouterOptions& options) {
  require_options(logits, bias, options);
  const std::int64_t n = logits.dim(0);
  const std::int64_t count = logits.dim(1);
  const Device device = logits.device();
  Routing r;
  r.scores = Tensor::empty_like(logits);
  r.weights = Tensor::empty({n, options.top_k}, logits.dtype(), device);
  const Tensor counters = Tensor::zeros({count + 1}, DType::i64, device);
  r.counts = counters.slice(0, count);
  r.dropped = counters.slice(count, count + 1);
  const Tensor selected = Tensor::empty({n, options.top_k}, DType::i32, device);
  r.experts = selected;
  const bool dropping = options.capacity_factor > 0.0;
  const std::int64_t capacity = capacity_of_group(selected.numel(), options);
  dispatch(
      "route", logits,
      [&]<class T>() {
        route_tokens<T>(logits, bias.defined() ? bias.data<float>() : nullptr, options, r.scores,
                        selected, r.weights);
        std::int64_t* counts = r.counts.data<std::int64_t>();
        const std::int32_t* ids = selected.data<std::int32_t>();
        for (std::int64_t i = 0; i < selected.numel(); ++i) ++counts[ids[i]];
        if (!dropping) return;
        r.experts = selected.clone();
        r.dropped.data<std::int64_t>()[0] =
            drop_lowest<T>(r.scores, selected, capacity, options, r.experts, r.weights);
      },
      [&] {
        cuda::route(logits, bias, options, r);
        if (!dropping) return;
        r.experts = selected.clone();
        cuda::drop_lowest(selected, capacity, options, r);
      });

  if (Tape* tape = Tape::recording({logits})) {
    tape->record("route", {logits}, {&r.weights, &r.scores},
                 [scores = r.scores.detach(), selected, experts = r.experts, options](Backward& b) {
                   const auto [dx, add] = b.target(0);
                   dispatch(
                       "route", scores,
                       [&]<class T>() {
                         route_backward<T>(scores, selected, experts, b.grad(0), b.grad(1), options,
                                           dx, add);
                       },
                       [&] {
                         cuda::route_backward(scores, selected, experts, b.grad(0), b.grad(1),
                                              options, dx, add);
                       });
                 });
  }
  return r;
}

}  // namespace fulcrum::ops
