// One orthogonal reduction G = Q B Q^T to a band serves every lambda: B + lambda I is factored in O(p width^2) and
// solved in O(p width) per right-hand side, and Q is applied once to the k columns of C and once to all solutions.
#include <algorithm>
#include <cmath>

#include "common/checked_blas.h"
#include "common/threads.h"
#include "cpu/band_reduction.h"
#include "cpu/lanczos.h"
#include "cpu/ridge_methods.h"

namespace krrdistill {
namespace {

// B and k right-hand sides in LAPACK's integers, checked before threads start: an exception must not leave them.
struct ShiftedBand {
  const double* band;
  int p, width, ld, k;
};

// factor <- Cholesky factor of B + shift I; false when it is not positive definite.
bool factor_shifted(const ShiftedBand& b, double shift, double* factor) {
  const int64_t p = b.p, ld = b.ld;
  std::copy(b.band, b.band + p * ld, factor);
  for (int64_t i = 0; i < p; ++i) {
    factor[i * ld] += shift;
  }
  char uplo = 'L';
  int n = b.p, width = b.width, ldab = b.ld, info = 0;
  blas<double>().pbtrf(&uplo, &n, &width, factor, &ldab, &info);
  return info == 0;
}

void solve_factored(const ShiftedBand& b, double* factor, double* columns) {
  char uplo = 'L';
  int n = b.p, width = b.width, ldab = b.ld, k = b.k, info = 0;
  blas<double>().pbtrs(&uplo, &n, &width, &k, factor, &ldab, columns, &n, &info);
}

// y = B x
void multiply(const BandReduction& r, const double* x, double* y) {
  const int64_t ld = r.width + 1;
  std::fill(y, y + r.p, 0.0);
  for (int64_t j = 0; j < r.p; ++j) {
    const double* column = r.band + j * ld;
    const int64_t count = std::min(ld, r.p - j);
    double sum = column[0] * x[j];
    for (int64_t i = 1; i < count; ++i) {
      y[j + i] += column[i] * x[j];
      sum += column[i] * x[j + i];
    }
    y[j] += sum;
  }
}

}  // namespace

int64_t band_path_workspace(int64_t p, int64_t k, int64_t lambdas) {
  const int64_t width = band_width(p);
  const int64_t scratch =
      std::max({reduce_to_band_workspace(p), apply_q_workspace(p, k * std::max<int64_t>(lambdas, 1)),
                max_threads() * p * (width + 1), lanczos_workspace(p)});
  return p * width + p * (width + 1) + k * p + scratch;
}

double band_path(const RidgeProblem& problem, const RidgeModels& models, double* workspace) {
  const int64_t p = problem.p, k = problem.k;
  const int64_t width = band_width(p);
  double* factors = workspace;
  double* band = factors + p * width;
  double* rotated = band + p * (width + 1);
  double* scratch = rotated + k * p;
  const BandReduction r{.p = p, .width = width, .vectors = problem.gram, .factors = factors, .band = band};
  reduce_to_band(r, scratch);
  const double largest = largest_eigenvalue(p, [&r](const double* x, double* y) { multiply(r, x, y); }, scratch);
  const double floor = problem.rounding * std::max(largest, 0.0);

  // Row-major (k, p) is column-major (p, k): the targets are the columns.
  std::copy(problem.cross, problem.cross + k * p, rotated);
  apply_q(r, true, rotated, k, scratch);
  const ShiftedBand shifted{.band = band,
                            .p = blas_int(p),
                            .width = blas_int(std::min(width, p - 1)),
                            .ld = blas_int(width + 1),
                            .k = blas_int(k)};
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t l = 0; l < problem.lambdas; ++l) {
    double* factor = scratch + thread_number() * p * (width + 1);
    double* solution = models.weights + l * k * p;
    std::copy(rotated, rotated + k * p, solution);
    models.resolved[l] = factor_shifted(shifted, problem.lambda[l] - floor, factor) ? 1 : 0;
    models.positive_definite[l] = factor_shifted(shifted, problem.lambda[l], factor) ? 1 : 0;
    if (models.positive_definite[l] != 0) {
      solve_factored(shifted, factor, solution);
    }
  }
  apply_q(r, false, models.weights, k * problem.lambdas, scratch);
  return largest;
}

}  // namespace krrdistill
