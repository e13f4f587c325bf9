#include "framework/optim/muon.h"

#include <omp.h>

#include <algorithm>
#include <cmath>

#include "framework/optim/matrices.h"
#include "framework/optim/muon_cuda.h"
#include "framework/optim/newton_schulz.h"

namespace fulcrum {
namespace {

constexpr std::int64_t kParallel = 65536;  // elements from which threads pay

// One matrix of one parameter.
template <class T>
struct Job {
  const T* gradient;  // null: zero
  T* weight;
  T* momentum;
  std::int64_t rows, cols;

  std::int64_t size() const { return rows * cols; }
  std::int64_t scratch() const { return size() + newton_schulz_scratch(rows, cols); }
};

template <class T>
void run(const Job<T>& job, const MuonOptions& options, double lr, double gradient_scale,
         T* scratch) {
  const std::int64_t n = job.size();
  T* update = scratch;
  const T keep = static_cast<T>(options.momentum);
  const T take =
      job.gradient == nullptr ? T{0} : static_cast<T>((1.0 - options.momentum) * gradient_scale);
  const T* g = job.gradient == nullptr ? job.momentum : job.gradient;
  const bool nesterov = options.nesterov;
#pragma omp parallel for simd schedule(static) if (n > kParallel)
  for (std::int64_t i = 0; i < n; ++i) {
    const T fresh = take * g[i];
    const T m = keep * job.momentum[i] + fresh;
    update[i] = nesterov ? keep * m + fresh : m;
    job.momentum[i] = m;
  }
  orthogonalize(update, job.rows, job.cols, options.iterations, scratch + n);
  const T decayed = static_cast<T>(1.0 - lr * options.weight_decay);
  const T size = static_cast<T>(lr * options.update_rms *
                                std::sqrt(static_cast<double>(std::max(job.rows, job.cols))));
#pragma omp parallel for simd schedule(static) if (n > kParallel)
  for (std::int64_t i = 0; i < n; ++i) job.weight[i] = decayed * job.weight[i] - size * update[i];
}

// Many small matrices: one thread each. Few: all threads on each in turn.
template <class T>
void run_all(const std::vector<Job<T>>& jobs, const MuonOptions& options, double lr,
             double gradient_scale) {
  std::int64_t most = 0;
  for (const Job<T>& job : jobs) most = std::max(most, job.scratch());
  const auto count = static_cast<std::int64_t>(jobs.size());
  const int threads = omp_get_max_threads();
  const bool apart = threads > 1 && count >= 2 * threads;
  const Tensor scratch = Tensor::empty({apart ? threads : 1, most}, dtype_of<T>);
  T* base = scratch.data<T>();
  if (!apart) {
    for (const Job<T>& job : jobs) run(job, options, lr, gradient_scale, base);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
  for (std::int64_t i = 0; i < count; ++i) {
    run(jobs[static_cast<std::size_t>(i)], options, lr, gradient_scale,
        base + omp_get_thread_num() * most);
  }
}

}  // namespace

Muon::Muon(std::vector<Parameter*> matrices, const MuonOptions& options)
    : Optimizer(std::move(matrices)), options_(options), momentum_(zero_state()) {
  for (const Parameter* p : parameters()) {
    const bool stacked = p->kind == ParameterKind::expert;
    FULCRUM_REQUIRE(p->value.rank() == (stacked ? 3 : 2), "muon: {} must be {}; got {}", p->name,
                    stacked ? "[experts, out, in]" : "[out, in]", p->value.shape());
    const std::int64_t held = p->master_rows.count;
    FULCRUM_REQUIRE(stacked || held == 0 || held == p->global_shape[0],
                    "muon: {} is divided by rows, but must be whole", p->name);
  }
}

std::vector<StateTensor> Muon::state() const {
  std::vector<StateTensor> list;
  append_state(list, "muon", "momentum", momentum_);
  return list;
}

void Muon::update(double lr, double gradient_scale) {
  if (parameters().empty()) return;
  if constexpr (kBuiltWithCuda) {
    if (on_cuda()) {
      std::vector<cuda::MuonTensors> list;
      for (std::size_t k = 0; k < parameters().size(); ++k) {
        list.push_back({*parameters()[k], gradient_of(*parameters()[k]), momentum_[k]});
      }
      return cuda::muon(list, options_, lr, gradient_scale);
    }
  }
  dispatch_floating("muon", parameters()[0]->master.dtype(), [&]<class T>() {
    std::vector<Job<T>> jobs;
    for (std::size_t k = 0; k < parameters().size(); ++k) {
      const Tensor& master = parameters()[k]->master;
      const Tensor gradient = gradient_of(*parameters()[k]);
      for (const auto& [offset, rows, cols] : matrices_of(*parameters()[k])) {
        jobs.push_back({gradient.defined() ? gradient.data<T>() + offset : nullptr,
                        master.data<T>() + offset, momentum_[k].data<T>() + offset, rows, cols});
      }
    }
    // The largest first, so that no thread is left alone with one at the end.
    std::stable_sort(jobs.begin(), jobs.end(),
                     [](const Job<T>& a, const Job<T>& b) { return a.size() > b.size(); });
    run_all(jobs, options_, lr, gradient_scale);
  });
  for (const Parameter* p : parameters()) p->round();
}

}  // namespace fulcrum
