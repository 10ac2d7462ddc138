// One orthogonal reduction G = Q B Q^T to a band serves every lambda: B + lambda I is factored in O(p width^2) and
// solved in O(p width) per right-hand side, and Q is applied once to the k columns of C and once to all solutions.
#include <algorithm>
#include <cmath>

#include "common/checked_blas.h"
#include "common/checked_size.h"
#include "common/lanczos.h"
#include "common/threads.h"
#include "cpu/band_cholesky.h"
#include "cpu/band_reduction.h"
#include "cpu/ridge_methods.h"

namespace krrdistill {
namespace {

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
  const int64_t models = checked_product(k, std::max<int64_t>(lambdas, 1));
  const int64_t scratch = std::max({reduce_to_band_workspace(p), apply_q_workspace(p, models),
                                    checked_product(max_threads(), band_cholesky_size(p)), lanczos_workspace(p)});
  return checked_sum(checked_product(p, checked_sum(2 * width, 1, k)), scratch);
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
  const BandCholesky cholesky(r);
  const int columns = blas_int(k);
  const int64_t size = band_cholesky_size(p);  // this may throw
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t l = 0; l < problem.lambdas; ++l) {
    double* factor = scratch + thread_number() * size;
    double* solution = models.weights + l * k * p;
    std::copy(rotated, rotated + k * p, solution);
    models.resolved[l] = cholesky.factor(problem.lambda[l] - floor, factor) ? 1 : 0;
    models.positive_definite[l] = cholesky.factor(problem.lambda[l], factor) ? 1 : 0;
    if (models.positive_definite[l] != 0) {
      cholesky.solve(factor, solution, columns);
    }
  }
  apply_q(r, false, models.weights, k * problem.lambdas, scratch);
  return largest;
}

}  // namespace krrdistill
