#include "krrdistill/preimage.h"

#include <algorithm>
#include <cmath>

#include "common/checked_blas.h"
#include "common/checked_size.h"

namespace krrdistill {
namespace {

// Row-major (p, d) is column-major W^T (d, p); so the 1-norm below is the largest row sum of W.
double largest_row_sum(const double* weight, int64_t p, int64_t d) {
  double largest = 0.0;
  for (int64_t i = 0; i < p; ++i) {
    double sum = 0.0;
    for (int64_t j = 0; j < d; ++j) {
      sum += std::fabs(weight[i * d + j]);
    }
    largest = std::max(largest, sum);
  }
  return largest;
}

double solve_square(double* weight, double* rhs, double* x, int64_t p, int64_t m, double rcond_floor, double* workspace,
                    int* pivots) {
  int n = blas_int(p);
  int columns = blas_int(m);
  int info = 0;
  double norm = largest_row_sum(weight, p, p);
  if (!std::isfinite(norm)) {
    return 0.0;  // LAPACK refuses such a norm
  }
  blas<double>().getrf(&n, &n, weight, &n, pivots, &info);
  check_info("getrf", info);
  if (info > 0) {
    return 0.0;
  }
  double rcond = 0.0;
  char which = '1';
  blas<double>().gecon(&which, &n, weight, &n, &norm, &rcond, workspace, pivots + p, &info);
  check_info("gecon", info);
  if (!(rcond >= rcond_floor)) {
    return rcond;
  }
  char trans = 'T';  // the factored matrix is W^T
  blas<double>().getrs(&trans, &n, &columns, weight, &n, pivots, rhs, &n, &info);
  check_info("getrs", info);
  if (x != rhs) {
    std::copy(rhs, rhs + m * p, x);
  }
  return rcond;
}

int qr_workspace(int p, int d, int m) {
  const int factor = query_workspace<double>([&](double* work, int* lwork, int* info) {
    blas<double>().geqrf(&d, &p, nullptr, &d, nullptr, work, lwork, info);
  });
  const int apply = query_workspace<double>([&](double* work, int* lwork, int* info) {
    char side = 'L', trans = 'N';
    blas<double>().ormqr(&side, &trans, &d, &m, &p, nullptr, &d, nullptr, nullptr, &d, work, lwork, info);
  });
  return std::max({factor, apply, 3 * p, 1});
}

// W^T = Q R, so W x = r is R^T y = r, x = Q [y; 0]: the solution in the row space, of least norm.
double solve_wide(double* weight, double* rhs, double* x, int64_t p, int64_t d, int64_t m, double rcond_floor,
                  double* workspace, int* iwork) {
  int ip = blas_int(p);
  int id = blas_int(d);
  int im = blas_int(m);
  double* tau = workspace;
  double* work = workspace + p;
  int lwork = qr_workspace(ip, id, im);
  int info = 0;
  blas<double>().geqrf(&id, &ip, weight, &id, tau, work, &lwork, &info);
  check_info("geqrf", info);
  double rcond = 0.0;
  char norm = '1', upper = 'U', no = 'N', yes = 'T', left = 'L';
  blas<double>().trcon(&norm, &upper, &no, &ip, weight, &id, &rcond, work, iwork, &info);
  check_info("trcon", info);
  if (!(rcond >= rcond_floor)) {
    return rcond;
  }
  blas<double>().trtrs(&upper, &yes, &no, &ip, &im, weight, &id, rhs, &ip, &info);
  check_info("trtrs", info);
  for (int64_t i = 0; i < m; ++i) {
    std::copy(rhs + i * p, rhs + (i + 1) * p, x + i * d);
    std::fill(x + i * d + p, x + (i + 1) * d, 0.0);
  }
  blas<double>().ormqr(&left, &no, &id, &im, &ip, weight, &id, tau, x, &id, work, &lwork, &info);
  check_info("ormqr", info);
  return rcond;
}

}  // namespace

int64_t preimage_workspace(int64_t p, int64_t d, int64_t m) {
  return std::max<int64_t>(checked_product(4, p), p + qr_workspace(blas_int(p), blas_int(d), blas_int(m)));
}

double preimage_solve(double* weight, double* rhs, double* x, int64_t p, int64_t d, int64_t m, double rcond_floor,
                      double* workspace, int* pivots) {
  if (p == d) {
    return solve_square(weight, rhs, x, p, m, rcond_floor, workspace, pivots);
  }
  return solve_wide(weight, rhs, x, p, d, m, rcond_floor, workspace, pivots);
}

}  // namespace krrdistill
