// The whole ridge path from one set of statistics: W(lambda) = C (G + lambda I)^-1 for every lambda.
#pragma once

#include <cstdint>

namespace krrdistill {

// One reduction to a band for all lambdas, or a Cholesky factorisation for each; `cheaper` chooses by their cost.
enum class RidgeMethod : uint8_t { cheaper, band, cholesky };

// Doubles of workspace that ridge_path needs, for a (p, p) Gram matrix and k targets.
int64_t ridge_path_workspace(int64_t p, int64_t k, int64_t lambdas, RidgeMethod method = RidgeMethod::cheaper);

// gram (p, p) symmetric, overwritten. cross (k, p). weights (lambdas, k, p) row-major; a lambda for which
// G + lambda I is not positive definite to working precision gets NaN weights and positive_definite = 0.
// resolved: whether G + (lambda - rounding s) I is positive definite too, s being the largest eigenvalue of G.
// Returns s, to a relative 1e-3.
double ridge_path(double* gram, const double* cross, int64_t p, int64_t k, const double* lambda, int64_t lambdas,
                  double rounding, double* weights, unsigned char* positive_definite, unsigned char* resolved,
                  double* workspace, RidgeMethod method = RidgeMethod::cheaper);

}  // namespace krrdistill
