#include "library/dense.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "common/checked_blas.h"
#include "krrdistill/errors.h"

// The two routines that the kernels do not need: BlasTable has the others.
// NOLINTBEGIN(readability-identifier-naming): Fortran's symbols
extern "C" {
void dgesdd_(char* jobz, int* m, int* n, double* a, int* lda, double* s, double* u, int* ldu, double* vt, int* ldvt,
             double* work, int* lwork, int* iwork, int* info);
void dpocon_(char* uplo, int* n, double* a, int* lda, double* anorm, double* rcond, double* work, int* iwork,
             int* info);
}
// NOLINTEND(readability-identifier-naming)

namespace krrdistill::library {
namespace {

// Row-major A is column-major A^T: LAPACK's left vectors are the right ones of A.
Svd decompose(Matrix A, char jobz) {
  int m = blas_int(A.columns), n = blas_int(A.rows), r = std::min(m, n), info = 0;
  const bool vectors = jobz != 'N';
  Svd out{.left = vectors ? Matrix(n, r) : Matrix(),
          .values = std::vector<double>(r),
          .right = vectors ? Matrix(r, m) : Matrix()};
  std::vector<int> iwork(8 * static_cast<size_t>(r));
  int ldu = std::max(m, 1), ldvt = std::max(r, 1);
  int size = query_workspace<double>([&](double* work, int* lwork, int* status) {
    dgesdd_(&jobz, &m, &n, A.values.data(), &m, out.values.data(), out.right.values.data(), &ldu,
            out.left.values.data(), &ldvt, work, lwork, iwork.data(), status);
  });
  std::vector<double> workspace(size);
  dgesdd_(&jobz, &m, &n, A.values.data(), &m, out.values.data(), out.right.values.data(), &ldu, out.left.values.data(),
          &ldvt, workspace.data(), &size, iwork.data(), &info);
  check_info("gesdd", info);
  if (info > 0) {
    throw DataError("the singular values of a matrix (" + std::to_string(n) + ", " + std::to_string(m) +
                    ") were not found");
  }
  return out;
}

void reflect(const Qr& qr, Matrix& C, char side, char trans) {
  // Row-major C (r, c) is column-major C^T (c, r).
  int rows = blas_int(C.columns), columns = blas_int(C.rows), order = blas_int(qr.n), ld = blas_int(qr.m), info = 0;
  auto* a = const_cast<double*>(qr.reflections.values.data());
  auto* tau = const_cast<double*>(qr.tau.data());
  int size = query_workspace<double>([&](double* work, int* lwork, int* status) {
    blas<double>().ormqr(&side, &trans, &rows, &columns, &order, a, &ld, tau, C.values.data(), &rows, work, lwork,
                         status);
  });
  std::vector<double> workspace(size);
  blas<double>().ormqr(&side, &trans, &rows, &columns, &order, a, &ld, tau, C.values.data(), &rows, workspace.data(),
                       &size, &info);
  check_info("ormqr", info);
}

}  // namespace

Matrix product(const Matrix& A, const Matrix& B, Use use_a, Use use_b) {
  const bool ta = use_a == Use::transposed, tb = use_b == Use::transposed;
  const int64_t m = ta ? A.columns : A.rows, inner = ta ? A.rows : A.columns, n = tb ? B.rows : B.columns;
  Matrix C(m, n);
  if (!C.empty() && inner > 0) {
    gemm<double>(tb ? 'T' : 'N', ta ? 'T' : 'N', n, m, inner, 1.0, B.values.data(), B.columns, A.values.data(),
                 A.columns, 0.0, C.values.data(), n);
  }
  return C;
}

Matrix transpose(const Matrix& A) {
  Matrix out(A.columns, A.rows);
  for (int64_t i = 0; i < A.rows; ++i) {
    for (int64_t j = 0; j < A.columns; ++j) {
      out(j, i) = A(i, j);
    }
  }
  return out;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

double norm(const std::vector<double>& values) { return std::sqrt(dot(values, values)); }

bool all_finite(const std::vector<double>& values) {
  return std::ranges::all_of(values, [](double value) { return std::isfinite(value); });
}

Svd svd(Matrix A) { return decompose(std::move(A), 'S'); }

std::vector<double> singular_values(Matrix A) { return decompose(std::move(A), 'N').values; }

int64_t rank(const std::vector<double>& singular_values, double cutoff) {
  const double least = singular_values.empty() ? 0.0 : cutoff * singular_values.front();
  return std::ranges::count_if(singular_values, [&](double value) { return value > least; });
}

Qr qr(const Matrix& A) {
  int m = blas_int(A.rows), n = blas_int(A.columns), info = 0;
  Qr out{.m = m, .n = n, .reflections = transpose(A), .tau = std::vector<double>(std::min(m, n))};
  int size = query_workspace<double>([&](double* work, int* lwork, int* status) {
    blas<double>().geqrf(&m, &n, nullptr, &m, nullptr, work, lwork, status);
  });
  std::vector<double> workspace(size);
  blas<double>().geqrf(&m, &n, out.reflections.values.data(), &m, out.tau.data(), workspace.data(), &size, &info);
  check_info("geqrf", info);
  return out;
}

Matrix Qr::q() const {
  Matrix columns(n, m);  // the first n columns of the identity, column-major
  for (int64_t i = 0; i < n; ++i) {
    columns(i, i) = 1.0;
  }
  reflect(*this, columns, 'L', 'N');
  return transpose(columns);
}

Matrix Qr::inverse_rt() const {
  Matrix columns(n, n);
  for (int64_t i = 0; i < n; ++i) {
    columns(i, i) = 1.0;
  }
  int order = blas_int(n), ld = blas_int(m), info = 0;
  char upper = 'U', yes = 'T', no = 'N';
  blas<double>().trtrs(&upper, &yes, &no, &order, &order, const_cast<double*>(reflections.values.data()), &ld,
                       columns.values.data(), &order, &info);
  check_info("trtrs", info);
  if (info > 0) {
    throw DataError("labels of shape (" + std::to_string(m) + ", " + std::to_string(n) + ") have a rank below " +
                    std::to_string(n) + "; use more points, or targets that differ");
  }
  return transpose(columns);
}

void Qr::reflect_columns(Matrix& C) const { reflect(*this, C, 'L', 'N'); }

void Qr::reflect_rows(Matrix& C) const { reflect(*this, C, 'R', 'T'); }

Cholesky::Cholesky(Matrix symmetric, double shift)
    : factor(std::move(symmetric)), condition(std::numeric_limits<double>::infinity()) {
  int n = blas_int(factor.rows), info = 0;
  double one_norm = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    factor(i, i) += shift;
    one_norm = std::max(one_norm, std::accumulate(factor.row(i), factor.row(i) + n, 0.0,
                                                  [](double sum, double value) { return sum + std::fabs(value); }));
  }
  char lower = 'L';
  blas<double>().potrf(&lower, &n, factor.values.data(), &n, &info);
  check_info("potrf", info);
  if (info > 0 || !std::isfinite(one_norm)) {
    return;
  }
  double rcond = 0.0;
  std::vector<double> work(3 * static_cast<size_t>(n));
  std::vector<int> iwork(n);
  dpocon_(&lower, &n, factor.values.data(), &n, &one_norm, &rcond, work.data(), iwork.data(), &info);
  check_info("pocon", info);
  if (rcond > 0.0) {
    condition = 1.0 / rcond;
  }
}

Matrix Cholesky::solve(const Matrix& B) const {
  Matrix columns = transpose(B);
  int n = blas_int(factor.rows), count = blas_int(B.columns), info = 0;
  char lower = 'L';
  blas<double>().potrs(&lower, &n, &count, const_cast<double*>(factor.values.data()), &n, columns.values.data(), &n,
                       &info);
  check_info("potrs", info);
  return transpose(columns);
}

}  // namespace krrdistill::library
