// Effective degrees of freedom of every model of a ridge path, what generalised cross-validation needs besides it.
#pragma once

#include <cstdint>

namespace krrdistill {

// Doubles of workspace that degrees_of_freedom needs.
int64_t degrees_of_freedom_workspace(int64_t p);

// degrees[l] = tr(G (G + lambda I)^-1) = p - lambda tr((G + lambda I)^-1) for lambda = lambda[l], NaN where G + lambda
// I is not positive definite to working precision. gram (p, p) symmetric, overwritten.
void degrees_of_freedom(double* gram, int64_t p, const double* lambda, int64_t lambdas, double* degrees,
                        double* workspace);

}  // namespace krrdistill
