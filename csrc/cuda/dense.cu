// Products, Gram matrices and triangular solves of float64 matrices of the host, which are worth their way to the
// device where they are large.
#include "cuda/gram.h"
#include "cuda/products.h"

namespace krrdistill::cuda {

void multiply(Context& context, const HostMatrix& a, const HostMatrix& b, double* out) {
  const int64_t m = a.rows, n = a.columns, r = b.columns;
  Scope scope(context);
  const double* left = scope.upload(a.data, m * n);
  const double* right = scope.upload(b.data, n * r);
  auto* product = scope.device<double>(m * r);
  // Row-major out (m, r) is column-major (r, m) = B^T A^T.
  gemm<double>(scope, b.by_columns ? CUBLAS_OP_T : CUBLAS_OP_N, a.by_columns ? CUBLAS_OP_T : CUBLAS_OP_N, r, m, n,
               right, b.by_columns ? n : r, left, a.by_columns ? m : n, 0.0, product, r);
  scope.download(out, product, m * r);
}

void gram_of(Context& context, const HostMatrix& a, double* out) {
  const int64_t m = a.rows, n = a.columns;
  Scope scope(context);
  const double* matrix = scope.upload(a.data, m * n);
  auto* product = scope.device<double>(m * m);
  // Row-major a (m, n) is column-major (n, m), whose columns are multiplied.
  syrk<double>(scope, m, n, matrix, a.by_columns ? m : n, 0.0, product, m, a.by_columns ? CUBLAS_OP_N : CUBLAS_OP_T);
  mirror(context.compute, product, m);
  scope.download(out, product, m * m);
}

void solve_factored(Context& context, const double* factor, const HostMatrix& b, double* out) {
  const int64_t n = b.rows, r = b.columns;
  Scope scope(context);
  const double* lower = scope.upload(factor, n * n);
  double* x = scope.upload(b.data, n * r);
  const double one = 1.0;
  // By rows, b is column-major (r, n) = B^T, and B^T L^-T L^-1 is wanted; by columns L^-T L^-1 B.
  for (const cublasOperation_t first : {CUBLAS_OP_N, CUBLAS_OP_T}) {
    const bool left = b.by_columns;
    const cublasOperation_t operation = left == (first == CUBLAS_OP_N) ? CUBLAS_OP_N : CUBLAS_OP_T;
    KRRDISTILL_CHECK(cublasDtrsm(context.blas, left ? CUBLAS_SIDE_LEFT : CUBLAS_SIDE_RIGHT, CUBLAS_FILL_MODE_LOWER,
                                 operation, CUBLAS_DIAG_NON_UNIT, narrow(left ? n : r), narrow(left ? r : n), &one,
                                 lower, narrow(n), x, narrow(left ? n : r)));
  }
  scope.download(out, x, n * r);
}

}  // namespace krrdistill::cuda
