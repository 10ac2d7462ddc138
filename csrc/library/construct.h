// The closed form: features and labels that train to a given model.
#pragma once

#include "krrdistill/matrix.h"

namespace krrdistill::library {

struct Construction {
  Matrix F;                  // (m, p), |F| at most the limit that was asked for
  Matrix Y;                  // (m, k)
  double range_scale = 1.0;  // what both were multiplied by to stay in it
};

// One-hot labels of k classes in turn, (points_per_class k, k).
Matrix one_hot_labels(int64_t k, int64_t points_per_class);

// F with Y^T (F^+)^T = W. With an orthonormal basis Q of Y = Q R, training needs D = Q A + N, A = R^-T W, Q^T N = 0,
// and F = (D^+)^T. N has orthonormal columns and rows, orthogonal to Q and to the rows of A, times the root mean square
// of the singular values of A: the least condition number there is. It is a seeded corner of the discrete cosine
// transform: nothing is factored but A and Y.
Construction construct(const Matrix& W, Matrix Y, uint64_t seed, double feature_limit);

}  // namespace krrdistill::library
