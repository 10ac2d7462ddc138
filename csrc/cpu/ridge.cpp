// Which of the two methods a ridge path takes, and NaN where there is no model.
#include "krrdistill/ridge.h"

#include <algorithm>
#include <limits>

#include "cpu/ridge_methods.h"
#include "krrdistill/band.h"

namespace krrdistill {
namespace {

// Nanoseconds, fitted to both methods at p = 8 ... 3072, k = 1 ... 100 and 1 ... 24 lambdas on 2 cores of an AMD EPYC
// (AVX2). What matters is their ratio, which other machines change little. Over those sizes the choice costs at most
// 30 % against the better one, or 0.2 ms.
bool cholesky_is_cheaper(int64_t order, int64_t targets, int64_t count) {
  const auto p = static_cast<double>(order), k = static_cast<double>(targets), lambdas = static_cast<double>(count);
  const auto width = static_cast<double>(band_width(order));
  const double cholesky = (lambdas + 1) * p * p * (0.0045 * p + 4.6) + 0.043 * lambdas * p * p * k;
  const double band =
      p * p * (0.012 * p + 27) + 0.044 * (lambdas + 1) * p * p * k + 0.33 * lambdas * p * width * (width + 2 * k);
  return cholesky < band;
}

bool by_cholesky(RidgeMethod method, int64_t p, int64_t k, int64_t lambdas) {
  return method == RidgeMethod::cheaper ? cholesky_is_cheaper(p, k, lambdas) : method == RidgeMethod::cholesky;
}

}  // namespace

int64_t ridge_path_workspace(int64_t p, int64_t k, int64_t lambdas, RidgeMethod method) {
  return by_cholesky(method, p, k, lambdas) ? cholesky_path_workspace(p) : band_path_workspace(p, k, lambdas);
}

double ridge_path(double* gram, const double* cross, int64_t p, int64_t k, const double* lambda, int64_t lambdas,
                  double rounding, double* weights, unsigned char* positive_definite, unsigned char* resolved,
                  double* workspace, RidgeMethod method) {
  const RidgeProblem problem{
      .gram = gram, .cross = cross, .p = p, .k = k, .lambda = lambda, .lambdas = lambdas, .rounding = rounding};
  const RidgeModels models{.weights = weights, .positive_definite = positive_definite, .resolved = resolved};
  const auto path = by_cholesky(method, p, k, lambdas) ? cholesky_path : band_path;
  const double largest = path(problem, models, workspace);
  for (int64_t l = 0; l < lambdas; ++l) {
    if (positive_definite[l] == 0) {
      std::fill(weights + l * k * p, weights + (l + 1) * k * p, std::numeric_limits<double>::quiet_NaN());
    }
  }
  return largest;
}

}  // namespace krrdistill
