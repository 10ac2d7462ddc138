// One orthogonal reduction G = Q B Q^T to a band serves every lambda: B + lambda I is factored in O(p width^2) and
// solved in O(p width) per right-hand side, and Q is applied once to the k columns of C and once to all solutions.
#include <algorithm>

#include "common/checked_size.h"
#include "common/threads.h"
#include "cpu/band_cholesky.h"
#include "cpu/ridge_methods.h"
#include "krrdistill/band.h"

namespace krrdistill {

int64_t band_path_workspace(int64_t p, int64_t k, int64_t lambdas) {
  const int64_t width = band_width(p);
  const int64_t models = checked_product(k, std::max<int64_t>(lambdas, 1));
  const int64_t thread = checked_sum(band_cholesky_size(p), columns_workspace(p));
  const int64_t scratch = std::max({reduce_to_band_workspace(p), largest_of_band_workspace(p),
                                    apply_q_workspace(p, models), checked_product(max_threads(), thread)});
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
  const double largest = largest_of_band(r, scratch);
  const double floor = problem.rounding * std::max(largest, 0.0);

  // Row-major (k, p) is column-major (p, k): the targets are the columns.
  std::copy(problem.cross, problem.cross + k * p, rotated);
  apply_q(r, true, rotated, k, scratch);
  const BandCholesky cholesky(r);
  const int64_t size = band_cholesky_size(p), thread = size + columns_workspace(p);  // these may throw
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t l = 0; l < problem.lambdas; ++l) {
    double* factor = scratch + thread_number() * thread;
    double* solution = models.weights + l * k * p;
    std::copy(rotated, rotated + k * p, solution);
    models.resolved[l] = cholesky.factor(problem.lambda[l] - floor, factor) ? 1 : 0;
    models.positive_definite[l] = cholesky.factor(problem.lambda[l], factor) ? 1 : 0;
    if (models.positive_definite[l] != 0) {
      cholesky.solve(factor, solution, 0, k, factor + size);
    }
  }
  apply_q(r, false, models.weights, k * problem.lambdas, scratch);
  return largest;
}

}  // namespace krrdistill
