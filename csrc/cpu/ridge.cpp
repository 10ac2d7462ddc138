// One orthogonal reduction G = Q T Q^T to tridiagonal form serves every lambda: T + lambda I is factored and
// solved in O(p) per right-hand side, and Q is applied once to the k columns of C and once to all solutions.
#include "krrdistill/ridge.h"

#include <algorithm>
#include <limits>

#include "common/checked_blas.h"

namespace krrdistill {
namespace {

struct Tridiagonal {
  double* q;  // (p, p), the Householder vectors of Q as dsytrd leaves them
  double* d;
  double* e;
  double* tau;
  double* work;
  int p;
  int lwork;
};

int sytrd_workspace(int p) {
  return query_workspace<double>([&](double* work, int* lwork, int* info) {
    char uplo = 'L';
    blas<double>().sytrd(&uplo, &p, nullptr, &p, nullptr, nullptr, nullptr, work, lwork, info);
  });
}

int ormtr_workspace(int p, int columns) {
  return query_workspace<double>([&](double* work, int* lwork, int* info) {
    char side = 'L', uplo = 'L', trans = 'N';
    blas<double>().ormtr(&side, &uplo, &trans, &p, &columns, nullptr, &p, nullptr, nullptr, &p, work, lwork, info);
  });
}

void reduce(Tridiagonal& t) {
  char uplo = 'L';
  int info = 0;
  blas<double>().sytrd(&uplo, &t.p, t.q, &t.p, t.d, t.e, t.tau, t.work, &t.lwork, &info);
  check_info("sytrd", info);
}

// columns <- Q columns ('N') or Q^T columns ('T'); `columns` is (p, count) column-major.
void apply_q(Tridiagonal& t, char trans, double* columns, int count) {
  char side = 'L', uplo = 'L';
  int info = 0;
  blas<double>().ormtr(&side, &uplo, &trans, &t.p, &count, t.q, &t.p, t.tau, columns, &t.p, t.work, &t.lwork, &info);
  check_info("ormtr", info);
}

// Solves (T + lambda I) X = B in place for k columns; false when it is not positive definite.
bool solve_shifted(const Tridiagonal& t, double lambda, double* d, double* e, double* columns, int k) {
  int p = t.p;
  for (int64_t i = 0; i < p; ++i) {
    d[i] = t.d[i] + lambda;
  }
  std::copy(t.e, t.e + std::max(p - 1, 0), e);
  int info = 0;
  blas<double>().pttrf(&p, d, e, &info);
  check_info("pttrf", info);
  if (info > 0) {
    return false;
  }
  blas<double>().pttrs(&p, &k, d, e, columns, &p, &info);
  check_info("pttrs", info);
  return true;
}

}  // namespace

int64_t ridge_path_workspace(int64_t p, int64_t k, int64_t lambdas) {
  const int ip = blas_int(p);
  const int lwork =
      std::max({1, sytrd_workspace(ip), ormtr_workspace(ip, blas_int(k)), ormtr_workspace(ip, blas_int(k * lambdas))});
  return 5 * p + k * p + lwork;
}

void ridge_path(double* gram, const double* cross, int64_t p, int64_t k, const double* lambda, int64_t lambdas,
                double* weights, unsigned char* positive_definite, double* eigenvalues, double* workspace) {
  double* d = workspace;
  double* e = d + p;
  double* tau = e + p;
  double* shifted_d = tau + p;
  double* shifted_e = shifted_d + p;
  double* rotated = shifted_e + p;
  double* work = rotated + k * p;
  const int lwork = blas_int(ridge_path_workspace(p, k, lambdas) - 5 * p - k * p);
  Tridiagonal t{.q = gram, .d = d, .e = e, .tau = tau, .work = work, .p = blas_int(p), .lwork = lwork};
  reduce(t);

  int info = 0;
  std::copy(d, d + p, eigenvalues);
  std::copy(e, e + p, shifted_e);
  blas<double>().sterf(&t.p, eigenvalues, shifted_e, &info);
  check_info("sterf", info);

  // Row-major (k, p) is column-major (p, k): the targets are the columns.
  std::copy(cross, cross + k * p, rotated);
  apply_q(t, 'T', rotated, blas_int(k));
  for (int64_t l = 0; l < lambdas; ++l) {
    double* solution = weights + l * k * p;
    std::copy(rotated, rotated + k * p, solution);
    positive_definite[l] = solve_shifted(t, lambda[l], shifted_d, shifted_e, solution, blas_int(k)) ? 1 : 0;
  }
  apply_q(t, 'N', weights, blas_int(k * lambdas));
  for (int64_t l = 0; l < lambdas; ++l) {
    if (positive_definite[l] == 0) {
      std::fill(weights + l * k * p, weights + (l + 1) * k * p, std::numeric_limits<double>::quiet_NaN());
    }
  }
}

}  // namespace krrdistill
