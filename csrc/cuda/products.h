// cuBLAS by type, with sizes checked. Column-major, as in common/checked_blas.h.
#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

// C = op(A) op(B) + beta C. Of an empty C there is nothing to compute, and cuBLAS refuses strides of zero.
template <typename T>
void gemm(Scope& scope, cublasOperation_t ta, cublasOperation_t tb, int64_t m, int64_t n, int64_t k, const T* a,
          int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  if (m == 0 || n == 0) {
    return;
  }
  const T one = 1;
  const auto run = [&](auto* routine, const char* name) {
    check(routine(scope.context.blas, ta, tb, narrow(m), narrow(n), narrow(k), &one, a, narrow(lda), b, narrow(ldb),
                  &beta, c, narrow(ldc)),
          name);
  };
  if constexpr (sizeof(T) == sizeof(float)) {
    run(&cublasSgemm, "cublasSgemm");
  } else {
    run(&cublasDgemm, "cublasDgemm");
  }
}

// C = A A^T + beta C on the upper triangle, A (n, k).
template <typename T>
void syrk(Scope& scope, int64_t n, int64_t k, const T* a, int64_t lda, T beta, T* c, int64_t ldc) {
  const T one = 1;
  const auto run = [&](auto* routine, const char* name) {
    check(routine(scope.context.blas, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_N, narrow(n), narrow(k), &one, a, narrow(lda),
                  &beta, c, narrow(ldc)),
          name);
  };
  if constexpr (sizeof(T) == sizeof(float)) {
    run(&cublasSsyrk, "cublasSsyrk");
  } else {
    run(&cublasDsyrk, "cublasDsyrk");
  }
}

}  // namespace krrdistill::cuda
