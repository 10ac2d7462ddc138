// Products, Gram matrices, factorisations and triangular solves. What comes from the host and goes back there is worth
// the way where it is large.
#include "cuda/dense.h"

#include <algorithm>
#include <string>
#include <vector>

#include "cuda/gram.h"
#include "cuda/matrices.h"
#include "cuda/products.h"
#include "krrdistill/errors.h"

namespace krrdistill::cuda {
namespace {

// The result of an operation, where it is wanted. Nothing may follow it.
Resident give(Scope& scope, double* result, int64_t n, double* out) {
  if (out == nullptr) {
    return scope.keep_here(result);
  }
  scope.download(out, result, n);
  return nullptr;
}

[[noreturn]] void fail(const char* routine, int info) {
  throw DeviceError(std::string("CUDA: ") + routine + " failed with info " + std::to_string(info));
}

}  // namespace

double* copy_of(Scope& scope, const Operand& a) {
  if (!a.on_device) {
    return scope.upload(a.data, a.size());
  }
  auto* copy = scope.device<double>(a.size());
  KRRDISTILL_CHECK(cudaMemcpyAsync(copy, a.data, static_cast<size_t>(a.size()) * sizeof(double),
                                   cudaMemcpyDeviceToDevice, scope.context.compute));
  return copy;
}

const double* operand(Scope& scope, const Operand& a) { return a.on_device ? a.data : scope.upload(a.data, a.size()); }

int info_of(Scope& scope, const char* routine, const int* device_info) {
  auto* info = scope.pinned<int>(1);  // of the scope, which waits for the copy where that fails
  scope.download(info, device_info, 1);
  if (*info < 0) {
    fail(routine, *info);
  }
  return *info;
}

int cholesky_in_place(Scope& scope, cublasFillMode_t triangle, int64_t n, double* a) {
  cusolverDnHandle_t solver = scope.context.solver;
  const int order = narrow(n);
  int length = 0;
  KRRDISTILL_CHECK(cusolverDnDpotrf_bufferSize(solver, triangle, order, a, order, &length));
  const Scope::Mark before = scope.mark();
  auto* work = scope.device<double>(length);
  auto* info = scope.device<int>(1);
  KRRDISTILL_CHECK(cusolverDnDpotrf(solver, triangle, order, a, order, work, length, info));
  const int failed = info_of(scope, "potrf", info);
  scope.release_to(before);
  return failed;
}

Resident place(Context& context, const Operand& a) {
  Scope scope(context);
  return scope.keep_here(copy_of(scope, a));
}

void fetch(Context& context, const Operand& a, double* out) {
  Scope scope(context);
  scope.download(out, a.data, a.size());
}

Resident multiply(Context& context, const Operand& a, const Operand& b, double* out) {
  const int64_t m = a.rows, n = a.columns, r = b.columns;
  Scope scope(context);
  const double* left = operand(scope, a);
  const double* right = operand(scope, b);
  auto* product = scope.device<double>(m * r);
  if (n == 0) {  // sums of no terms, for which cuBLAS refuses strides of zero
    clear(context.compute, product, m * r);
    return give(scope, product, m * r, out);
  }
  // Row-major out (m, r) is column-major (r, m) = B^T A^T.
  gemm<double>(scope, b.by_columns ? CUBLAS_OP_T : CUBLAS_OP_N, a.by_columns ? CUBLAS_OP_T : CUBLAS_OP_N, r, m, n,
               right, b.by_columns ? n : r, left, a.by_columns ? m : n, 0.0, product, r);
  return give(scope, product, m * r, out);
}

Resident gram_of(Context& context, const Operand& a, double* out) {
  const int64_t m = a.rows, n = a.columns;
  Scope scope(context);
  const double* matrix = operand(scope, a);
  auto* product = scope.device<double>(m * m);
  if (a.size() == 0) {
    clear(context.compute, product, m * m);
    return give(scope, product, m * m, out);
  }
  // Row-major a (m, n) is column-major (n, m), whose columns are multiplied.
  syrk<double>(scope, m, n, matrix, a.by_columns ? m : n, 0.0, product, m, a.by_columns ? CUBLAS_OP_N : CUBLAS_OP_T);
  mirror(context.compute, product, m);
  return give(scope, product, m * m, out);
}

Factor cholesky(Context& context, const Operand& a, double shift) {
  const int64_t n = a.rows;
  std::vector<double> sums(static_cast<size_t>(n));  // before the scope, which waits for copies to them
  Scope scope(context);
  auto* lower = scope.device<double>(n * n);
  auto* column_sums = scope.device<double>(n);
  shift_diagonal(context.compute, operand(scope, a), n, shift, lower, column_sums);
  const int failed = cholesky_in_place(scope, CUBLAS_FILL_MODE_LOWER, n, lower);
  scope.download(sums.data(), column_sums, n);
  const double norm = *std::max_element(sums.begin(), sums.end());
  return {.lower = failed == 0 ? scope.keep_here(lower) : nullptr, .norm = norm};
}

Resident eigenvectors(Context& context, const Operand& a, double* values) {
  const int n = narrow(a.rows);
  int work_size = 0;
  Scope scope(context);
  double* vectors = copy_of(scope, a);
  auto* found = scope.device<double>(n);
  auto* info = scope.device<int>(1);
  KRRDISTILL_CHECK(cusolverDnDsyevd_bufferSize(context.solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n,
                                               vectors, n, found, &work_size));
  auto* work = scope.device<double>(work_size);
  KRRDISTILL_CHECK(cusolverDnDsyevd(context.solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, vectors, n,
                                    found, work, work_size, info));
  if (const int failed = info_of(scope, "syevd", info); failed != 0) {
    fail("syevd", failed);
  }
  scope.download(values, found, n);
  return scope.keep_here(vectors);
}

Resident solve_factored(Context& context, const Operand& factor, const Operand& b, double* out) {
  const int64_t n = b.rows, r = b.columns;
  Scope scope(context);
  const double* lower = operand(scope, factor);
  double* x = copy_of(scope, b);
  if (b.size() == 0) {
    return give(scope, x, 0, out);
  }
  const double one = 1.0;
  const bool left = b.by_columns;
  // By rows, b is column-major (r, n) = B^T, and B^T L^-T L^-1 is wanted; by columns L^-T L^-1 B.
  for (const cublasOperation_t first : {CUBLAS_OP_N, CUBLAS_OP_T}) {
    const cublasOperation_t operation = left == (first == CUBLAS_OP_N) ? CUBLAS_OP_N : CUBLAS_OP_T;
    if (r == 1) {  // a vector, whose layout says nothing
      KRRDISTILL_CHECK(cublasDtrsv(context.blas, CUBLAS_FILL_MODE_LOWER, first, CUBLAS_DIAG_NON_UNIT, narrow(n), lower,
                                   narrow(n), x, 1));
    } else {
      KRRDISTILL_CHECK(cublasDtrsm(context.blas, left ? CUBLAS_SIDE_LEFT : CUBLAS_SIDE_RIGHT, CUBLAS_FILL_MODE_LOWER,
                                   operation, CUBLAS_DIAG_NON_UNIT, narrow(left ? n : r), narrow(left ? r : n), &one,
                                   lower, narrow(n), x, narrow(left ? n : r)));
    }
  }
  return give(scope, x, n * r, out);
}

}  // namespace krrdistill::cuda
