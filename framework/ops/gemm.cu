#include <cublasLt.h>

#include <algorithm>
#include <compare>
#include <map>

#include "framework/core/cuda_stream.h"
#include "framework/ops/gemm.h"
#include "framework/ops/gemm_cuda.h"

#define FULCRUM_CUBLAS_CHECK(call)                                               \
  do {                                                                           \
    const cublasStatus_t cublas_check_result = (call);                           \
    FULCRUM_CHECK(cublas_check_result == CUBLAS_STATUS_SUCCESS, "{}: {}", #call, \
                  cublasLtGetStatusString(cublas_check_result));                 \
  } while (0)

namespace fulcrum::ops::cuda {
namespace {

// Lives as long as the process: one device, one stream, so that products take turns in it.
void* workspace(Device device) {
  static const auto* const block =
      new Tensor(Tensor::empty({kMatmulWorkspaceBytes}, DType::u8, device));
  return block->raw();
}

cublasLtHandle_t handle() {
  static const cublasLtHandle_t created = [] {
    cublasLtHandle_t fresh = nullptr;
    FULCRUM_CUBLAS_CHECK(cublasLtCreate(&fresh));
    return fresh;
  }();
  return created;
}

// A stored row-major matrix, or a batch of them.
struct Stored {
  void* data;
  std::int64_t rows, columns, stride, batch_stride;

  // Largest power of two, up to what cuBLASLt asks about, that divides the address of every matrix
  // of the batch.
  std::uint32_t alignment(DType dtype) const {
    constexpr std::uint64_t kMost = 256;
    const auto bits = reinterpret_cast<std::uint64_t>(data) |
                      static_cast<std::uint64_t>(batch_stride * size_of(dtype)) | kMost;
    return static_cast<std::uint32_t>(bits & (~bits + 1));
  }
};

struct Key {
  bool ta, tb;
  DType in, out;
  std::int64_t m, n, k, batch;
  std::int64_t a_stride, b_stride, out_stride, a_batch, b_batch, out_batch;
  std::uint32_t a_alignment, b_alignment, out_alignment;
  auto operator<=>(const Key&) const = default;
};

struct Plan {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t a, b, out;
  cublasLtMatmulAlgo_t algorithm;
};

cudaDataType_t type_of(DType dtype) { return dtype == DType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

// cuBLASLt stores columns together, so that to it a row-major matrix is its own transpose.
void set_layout(cublasLtMatrixLayoutOpaque_t& layout, DType dtype, std::int64_t rows,
                std::int64_t columns, std::int64_t stride, std::int64_t batch,
                std::int64_t batch_stride) {
  FULCRUM_CUBLAS_CHECK(cublasLtMatrixLayoutInit(&layout, type_of(dtype),
                                                static_cast<std::uint64_t>(columns),
                                                static_cast<std::uint64_t>(rows), stride));
  if (batch == 1) return;
  const auto count = static_cast<std::int32_t>(batch);
  FULCRUM_CUBLAS_CHECK(cublasLtMatrixLayoutSetAttribute(&layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
                                                        &count, sizeof count));
  FULCRUM_CUBLAS_CHECK(cublasLtMatrixLayoutSetAttribute(
      &layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride, sizeof batch_stride));
}

template <class T>
void set(cublasLtMatmulPreferenceOpaque_t& preference, cublasLtMatmulPreferenceAttributes_t name,
         T value) {
  FULCRUM_CUBLAS_CHECK(
      cublasLtMatmulPreferenceSetAttribute(&preference, name, &value, sizeof value));
}

// outᵀ = op(b)ᵀ · op(a)ᵀ: b is cuBLASLt's first operand.
void build(const Key& key, Plan& plan) {
  FULCRUM_CUBLAS_CHECK(cublasLtMatmulDescInit(&plan.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
  const cublasOperation_t first = key.tb ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = key.ta ? CUBLAS_OP_T : CUBLAS_OP_N;
  FULCRUM_CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(&plan.operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                      &first, sizeof first));
  FULCRUM_CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(&plan.operation, CUBLASLT_MATMUL_DESC_TRANSB,
                                                      &second, sizeof second));
  set_layout(plan.a, key.in, key.ta ? key.k : key.m, key.ta ? key.m : key.k, key.a_stride,
             key.batch, key.a_batch);
  set_layout(plan.b, key.in, key.tb ? key.n : key.k, key.tb ? key.k : key.n, key.b_stride,
             key.batch, key.b_batch);
  set_layout(plan.out, key.out, key.m, key.n, key.out_stride, key.batch, key.out_batch);

  cublasLtMatmulPreferenceOpaque_t preference;
  FULCRUM_CUBLAS_CHECK(cublasLtMatmulPreferenceInit(&preference));
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
      static_cast<std::uint64_t>(kMatmulWorkspaceBytes));
  // Parts of a divided inner dimension are added in f32.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.b_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.a_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.out_alignment);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.out_alignment);

  cublasLtMatmulHeuristicResult_t best;
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle(), &plan.operation, &plan.b, &plan.a, &plan.out,
                                     &plan.out, &preference, 1, &best, &found);
  FULCRUM_CHECK(status == CUBLAS_STATUS_SUCCESS && found == 1,
                "cuBLASLt has no product of {} into {}, {} x {} x {}, {} {}, batch {}: {}", key.in,
                key.out, key.m, key.n, key.k, key.ta ? "transposed" : "plain",
                key.tb ? "transposed" : "plain", key.batch, cublasLtGetStatusString(status));
  plan.algorithm = best.algo;
}

// Asking for an algorithm takes tens of microseconds, so plans are kept. Products are asked for by
// the one thread that computes.
Plan& plan_of(const Key& key) {
  static auto* const known = new std::map<Key, Plan>;
  const auto [it, added] = known->try_emplace(key);
  if (added) {
    try {
      build(key, it->second);
    } catch (...) {
      known->erase(it);
      throw;
    }
  }
  return it->second;
}

void run(const Stored& a, bool ta, const Stored& b, bool tb, const Stored& out, DType in,
         DType out_dtype, Device device, std::int64_t batch, float alpha, float beta) {
  const Key key{ta,
                tb,
                in,
                out_dtype,
                out.rows,
                out.columns,
                ta ? a.rows : a.columns,
                batch,
                a.stride,
                b.stride,
                out.stride,
                a.batch_stride,
                b.batch_stride,
                out.batch_stride,
                a.alignment(in),
                b.alignment(in),
                out.alignment(out_dtype)};
  Plan& plan = plan_of(key);
  FULCRUM_CUBLAS_CHECK(cublasLtMatmul(handle(), &plan.operation, &alpha, b.data, &plan.b, a.data,
                                      &plan.a, &beta, out.data, &plan.out, out.data, &plan.out,
                                      &plan.algorithm, workspace(device), kMatmulWorkspaceBytes,
                                      compute_stream()));
}

void check_dtypes(const Tensor& a, const Tensor& b, const Tensor& out) {
  const bool known =
      a.dtype() == b.dtype() && (out.dtype() == DType::f32 || out.dtype() == DType::bf16) &&
      (a.dtype() == DType::bf16 || (a.dtype() == DType::f32 && out.dtype() == DType::f32));
  FULCRUM_REQUIRE(
      known && a.device().is_cuda() && a.device() == b.device() && a.device() == out.device(),
      "matmul: CUDA multiplies bf16 matrices into bf16 or f32, or f32 ones into f32, on "
      "one device; got {} on {} and {} on {} into {} on {}",
      a.dtype(), a.device(), b.dtype(), b.device(), out.dtype(), out.device());
}

}  // namespace

void multiply(const Matrix& a, bool ta, const Matrix& b, bool tb, const Matrix& out, bool add) {
  check_dtypes(a.tensor, b.tensor, out.tensor);
  const std::int64_t k = ta ? a.rows() : a.columns;
  FULCRUM_CHECK((ta ? a.columns : a.rows()) == out.rows() && (tb ? b.columns : b.rows()) == k &&
                    (tb ? b.rows() : b.columns) == out.columns,
                "product of {} and {} into {}", a.tensor.shape(), b.tensor.shape(),
                out.tensor.shape());
  if (out.rows() == 0 || out.columns == 0) return;
  if (k == 0) {
    if (!add) out.tensor.zero();
    return;
  }
  const auto stored = [](const Matrix& x) {
    return Stored{x.tensor.raw(), x.rows(), x.columns, x.stride(), 0};
  };
  run(stored(a), ta, stored(b), tb, stored(out), a.tensor.dtype(), out.tensor.dtype(),
      out.tensor.device(), 1, 1.0f, add ? 1.0f : 0.0f);
}

void multiply_batched(const Tensor& a, bool ta, const Tensor& b, bool tb, const Tensor& out,
                      float alpha, float beta) {
  check_dtypes(a, b, out);
  FULCRUM_CHECK(a.rank() == 3 && b.rank() == 3 && out.rank() == 3 && a.dim(0) == out.dim(0) &&
                    b.dim(0) == out.dim(0) && a.dim(ta ? 2 : 1) == out.dim(1) &&
                    b.dim(tb ? 1 : 2) == out.dim(2) && a.dim(ta ? 1 : 2) == b.dim(tb ? 2 : 1),
                "batch of products of {} and {} into {}", a.shape(), b.shape(), out.shape());
  FULCRUM_CHECK(a.dim(ta ? 1 : 2) > 0, "batch of products over an empty inner dimension");
  if (out.numel() == 0) return;
  const auto stored = [](const Tensor& x) {
    return Stored{x.raw(), x.dim(1), x.dim(2), x.dim(2), x.dim(1) * x.dim(2)};
  };
  run(stored(a), ta, stored(b), tb, stored(out), a.dtype(), out.dtype(), out.device(), out.dim(0),
      alpha, beta);
}

}  // namespace fulcrum::ops::cuda
