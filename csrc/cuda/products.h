// cuBLAS by type, with sizes checked. Column-major, as in common/checked_blas.h.
#pragma once

#include <algorithm>
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

// C = A A^T + beta C on the upper triangle, A (n, k), or A^T A for `operation` CUBLAS_OP_T, A (k, n).
template <typename T>
void syrk(Scope& scope, int64_t n, int64_t k, const T* a, int64_t lda, T beta, T* c, int64_t ldc,
          cublasOperation_t operation = CUBLAS_OP_N) {
  const T one = 1;
  const auto run = [&](auto* routine, const char* name) {
    check(routine(scope.context.blas, CUBLAS_FILL_MODE_UPPER, operation, narrow(n), narrow(k), &one, a, narrow(lda),
                  &beta, c, narrow(ldc)),
          name);
  };
  if constexpr (sizeof(T) == sizeof(float)) {
    run(&cublasSsyrk, "cublasSsyrk");
  } else {
    run(&cublasDsyrk, "cublasDsyrk");
  }
}

// Sizes of products of bytes: cuBLAS takes them to the integer tensor cores where rows start on 16-byte boundaries and
// no size is 16 or less.
inline int64_t byte_order(int64_t size) { return ceil_div(size, 32) * 32; }

// out (rows, columns) = left right^T, or += it: row-major, exact as long as sums fit 32 bits. left (rows, depth) and
// right (columns, depth) are contiguous along the depth, which is how the tensor cores want them.
inline void multiply_bytes(Scope& scope, int64_t rows, int64_t columns, int64_t depth, const int8_t* left,
                           int64_t left_ld, const int8_t* right, int64_t right_ld, bool add, int32_t* out, int64_t ld) {
  const int32_t one = 1, beta = add ? 1 : 0;
  check(cublasGemmEx(scope.context.blas, CUBLAS_OP_T, CUBLAS_OP_N, narrow(columns), narrow(rows), narrow(depth), &one,
                     right, CUDA_R_8I, narrow(right_ld), left, CUDA_R_8I, narrow(left_ld), &beta, out, CUDA_R_32I,
                     narrow(ld), CUBLAS_COMPUTE_32I, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

// The same for one operand of `order` rows where only the lower triangle of out (order, order) is wanted: columns of
// blocks, from the diagonal down. What lies above the triangle is undefined.
constexpr int64_t lower_block = 1024;  // wide enough to fill the device, narrow enough to leave a third of a square out
inline void multiply_bytes_lower(Scope& scope, int64_t order, int64_t depth, const int8_t* rows, int64_t rows_ld,
                                 bool add, int32_t* out, int64_t ld) {
  for (int64_t first = 0; first < order; first += lower_block) {
    multiply_bytes(scope, order - first, std::min(lower_block, order - first), depth, rows + first * rows_ld, rows_ld,
                   rows + first * rows_ld, rows_ld, add, out + first * ld + first, ld);
  }
}

// Blocks of 128 x 128 of a product of bytes run beside each other, one on each multiprocessor: how often the device
// takes as many as it has.
inline int64_t turns(const Scope& scope, int64_t rows, int64_t columns) {
  constexpr int64_t side = 128;
  return ceil_div(ceil_div(rows, side) * ceil_div(columns, side), scope.context.multiprocessors);
}

inline int64_t turns_lower(const Scope& scope, int64_t order) {
  int64_t sum = 0;
  for (int64_t first = 0; first < order; first += lower_block) {
    sum += turns(scope, order - first, std::min(lower_block, order - first));
  }
  return sum;
}

}  // namespace krrdistill::cuda
