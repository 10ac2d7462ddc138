// Ridge regression on a few features: the model that a distilled set retrains to.
#pragma once

#include <vector>

#include "krrdistill/matrix.h"

namespace krrdistill::library {

// W = Y^T (F F^T + lambda I)^-1 F (k, p) for features F (m, p) and labels Y (m, k); Y^T (F^+)^T for lambda = 0.
// Cholesky of the smaller Gram matrix with one step of refinement; the SVD, with singular values under 1e-10 of the
// largest counted as 0, where that is too ill-conditioned.
Matrix fit_features(const Matrix& F, const Matrix& Y, double lambda);

// The m - 1 rows of an orthonormal basis of what has mean 0, times A (m, q): ridge of A with an unpenalised intercept
// is ridge of them without.
Matrix contrasts(const Matrix& A);

std::vector<double> column_means(const Matrix& A);

// s_1 / s_min(m, p) of F, infinite where F is rank deficient.
double condition_number(const Matrix& F);

}  // namespace krrdistill::library
