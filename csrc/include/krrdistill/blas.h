// BLAS and LAPACK as a table of function pointers. In the stand-alone library it holds the BLAS that the library was
// linked with. The Python module fills it with the functions that SciPy exports, so nothing is linked and there is one
// thread pool. LP64 (32-bit integers) Fortran interfaces only.
#pragma once

namespace krrdistill {

template <typename T>
struct BlasTable {
  void (*gemm)(char* transa, char* transb, int* m, int* n, int* k, T* alpha, T* a, int* lda, T* b, int* ldb, T* beta,
               T* c, int* ldc) = nullptr;
  void (*syrk)(char* uplo, char* trans, int* n, int* k, T* alpha, T* a, int* lda, T* beta, T* c, int* ldc) = nullptr;
  void (*symm)(char* side, char* uplo, int* m, int* n, T* alpha, T* a, int* lda, T* b, int* ldb, T* beta, T* c,
               int* ldc) = nullptr;
  void (*syr2k)(char* uplo, char* trans, int* n, int* k, T* alpha, T* a, int* lda, T* b, int* ldb, T* beta, T* c,
                int* ldc) = nullptr;
  void (*symv)(char* uplo, int* n, T* alpha, T* a, int* lda, T* x, int* incx, T* beta, T* y, int* incy) = nullptr;
  void (*potrf)(char* uplo, int* n, T* a, int* lda, int* info) = nullptr;
  void (*potrs)(char* uplo, int* n, int* nrhs, T* a, int* lda, T* b, int* ldb, int* info) = nullptr;
  void (*geqrt)(int* m, int* n, int* nb, T* a, int* lda, T* t, int* ldt, T* work, int* info) = nullptr;
  void (*larft)(char* direct, char* storev, int* n, int* k, T* v, int* ldv, T* tau, T* t, int* ldt) = nullptr;
  void (*pbtrf)(char* uplo, int* n, int* kd, T* ab, int* ldab, int* info) = nullptr;
  void (*pbtrs)(char* uplo, int* n, int* kd, int* nrhs, T* ab, int* ldab, T* b, int* ldb, int* info) = nullptr;
  void (*getrf)(int* m, int* n, T* a, int* lda, int* ipiv, int* info) = nullptr;
  void (*getrs)(char* trans, int* n, int* nrhs, T* a, int* lda, int* ipiv, T* b, int* ldb, int* info) = nullptr;
  void (*gecon)(char* norm, int* n, T* a, int* lda, T* anorm, T* rcond, T* work, int* iwork, int* info) = nullptr;
  void (*geqrf)(int* m, int* n, T* a, int* lda, T* tau, T* work, int* lwork, int* info) = nullptr;
  void (*ormqr)(char* side, char* trans, int* m, int* n, int* k, T* a, int* lda, T* tau, T* c, int* ldc, T* work,
                int* lwork, int* info) = nullptr;
  void (*trtrs)(char* uplo, char* trans, char* diag, int* n, int* nrhs, T* a, int* lda, T* b, int* ldb,
                int* info) = nullptr;
  void (*trcon)(char* norm, char* uplo, char* diag, int* n, T* a, int* lda, T* rcond, T* work, int* iwork,
                int* info) = nullptr;
};

// The process-wide table. Entries may be replaced before the first call of anything else.
template <typename T>
BlasTable<T>& blas();

}  // namespace krrdistill
