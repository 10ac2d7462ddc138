// Thin value-argument wrappers: the 64-bit sizes of this library to BLAS's int, checked once.
#pragma once

#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include "krrdistill/blas.h"

namespace krrdistill {

inline int blas_int(int64_t value) {
  if (value < 0 || value > std::numeric_limits<int>::max()) {
    throw std::length_error("size " + std::to_string(value) + " does not fit the 32-bit integers of BLAS");
  }
  return static_cast<int>(value);
}

inline void check_info(const char* routine, int info) {
  if (info < 0) {
    throw std::logic_error(std::string(routine) + ": argument " + std::to_string(-info) + " is invalid");
  }
}

// C = alpha op(A) op(B) + beta C, column-major.
template <typename T>
void gemm(char ta, char tb, int64_t m, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb,
          T beta, T* c, int64_t ldc) {
  int im = blas_int(m), in = blas_int(n), ik = blas_int(k);
  int ia = blas_int(lda), ib = blas_int(ldb), ic = blas_int(ldc);
  blas<T>().gemm(&ta, &tb, &im, &in, &ik, &alpha, const_cast<T*>(a), &ia, const_cast<T*>(b), &ib, &beta, c, &ic);
}

// C = alpha A A^T + beta C on the triangle `uplo`, column-major, A (n, k).
template <typename T>
void syrk(char uplo, int64_t n, int64_t k, T alpha, const T* a, int64_t lda, T beta, T* c, int64_t ldc) {
  int in = blas_int(n), ik = blas_int(k), ia = blas_int(lda), ic = blas_int(ldc);
  char trans = 'N';
  blas<T>().syrk(&uplo, &trans, &in, &ik, &alpha, const_cast<T*>(a), &ia, &beta, c, &ic);
}

// C = alpha A B + beta C with the lower triangle of the symmetric A (m, m), column-major, B and C (m, n).
template <typename T>
void symm(int64_t m, int64_t n, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  int im = blas_int(m), in = blas_int(n), ia = blas_int(lda), ib = blas_int(ldb), ic = blas_int(ldc);
  char side = 'L', uplo = 'L';
  blas<T>().symm(&side, &uplo, &im, &in, &alpha, const_cast<T*>(a), &ia, const_cast<T*>(b), &ib, &beta, c, &ic);
}

// C = alpha (A B^T + B A^T) + beta C on the lower triangle, column-major, A and B (n, k).
template <typename T>
void syr2k(int64_t n, int64_t k, T alpha, const T* a, int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc) {
  int in = blas_int(n), ik = blas_int(k), ia = blas_int(lda), ib = blas_int(ldb), ic = blas_int(ldc);
  char uplo = 'L', trans = 'N';
  blas<T>().syr2k(&uplo, &trans, &in, &ik, &alpha, const_cast<T*>(a), &ia, const_cast<T*>(b), &ib, &beta, c, &ic);
}

// y = A x with one triangle of the symmetric A (n, n), column-major.
template <typename T>
void symv(char uplo, int64_t n, const T* a, int64_t lda, const T* x, T* y) {
  int in = blas_int(n), ia = blas_int(lda), step = 1;
  T one = 1, zero = 0;
  blas<T>().symv(&uplo, &in, &one, const_cast<T*>(a), &ia, const_cast<T*>(x), &step, &zero, y, &step);
}

// Calls `routine(work, lwork, info)` twice: workspace query into `size`, or the run itself.
template <typename T, typename Routine>
int query_workspace(Routine routine) {
  T size = 0;
  int lwork = -1;
  int info = 0;
  routine(&size, &lwork, &info);
  return static_cast<int>(size);
}

}  // namespace krrdistill
