#include "library/retrain.h"

#include <cmath>
#include <limits>

#include "library/dense.h"

namespace krrdistill::library {
namespace {

constexpr double max_gram_condition = 1e10;  // beyond it Cholesky of a Gram matrix loses too much
constexpr double rank_cutoff = 1e-10;        // of singular values, relative to the largest

void subtract(Matrix& A, const Matrix& B, double factor = 1.0) {
  for (size_t i = 0; i < A.values.size(); ++i) {
    A.values[i] -= factor * B.values[i];
  }
}

Matrix fit_by_svd(const Matrix& F, const Matrix& Y, double lambda) {
  const Svd parts = svd(F);
  const int64_t kept = rank(parts.values, rank_cutoff);
  Matrix A = product(Y, parts.left, Use::transposed);
  for (int64_t c = 0; c < A.rows; ++c) {
    for (int64_t j = 0; j < A.columns; ++j) {
      const double s = parts.values[j];
      A(c, j) *= j < kept ? s / (s * s + lambda) : 0.0;
    }
  }
  return product(A, parts.right);
}

// X with A X = B and one step of refinement; `apply` is A.
template <typename Apply>
Matrix solve_refined(const Cholesky& cholesky, const Matrix& B, Apply apply) {
  Matrix X = cholesky.solve(B);
  Matrix residual = B;
  subtract(residual, apply(X));
  subtract(X, cholesky.solve(residual), -1.0);
  return X;
}

}  // namespace

Matrix fit_features(const Matrix& F, const Matrix& Y, double lambda) {
  const bool wide = F.rows <= F.columns;
  const Cholesky cholesky(wide ? product(F, F, Use::plain, Use::transposed) : product(F, F, Use::transposed), lambda);
  if (!(cholesky.condition <= max_gram_condition)) {
    return fit_by_svd(F, Y, lambda);
  }
  if (wide) {  // W^T = F^T a with (F F^T + lambda I) a = Y
    const Matrix a = solve_refined(cholesky, Y, [&](const Matrix& x) {
      Matrix image = product(F, product(F, x, Use::transposed));
      subtract(image, x, -lambda);
      return image;
    });
    return product(a, F, Use::transposed);
  }
  const Matrix W = solve_refined(cholesky, product(F, Y, Use::transposed), [&](const Matrix& x) {
    Matrix image = product(F, product(F, x), Use::transposed);
    subtract(image, x, -lambda);
    return image;
  });
  return transpose(W);
}

std::vector<double> column_means(const Matrix& A) {
  std::vector<double> means(A.columns);
  for (int64_t i = 0; i < A.rows; ++i) {
    for (int64_t j = 0; j < A.columns; ++j) {
      means[j] += A(i, j) / static_cast<double>(A.rows);
    }
  }
  return means;
}

Matrix contrasts(const Matrix& A) {
  // Rows 2 ... m of the Householder reflection that takes the vector of ones to the first axis.
  const double root = 1.0 / std::sqrt(static_cast<double>(A.rows));
  const double first = root + 1.0;  // the sign that does not cancel
  std::vector<double> image(A.columns);
  for (int64_t i = 0; i < A.rows; ++i) {
    for (int64_t j = 0; j < A.columns; ++j) {
      image[j] += (i == 0 ? first : root) * A(i, j) / first;
    }
  }
  Matrix out(A.rows - 1, A.columns);
  for (int64_t i = 1; i < A.rows; ++i) {
    for (int64_t j = 0; j < A.columns; ++j) {
      out(i - 1, j) = A(i, j) - root * image[j];
    }
  }
  return out;
}

double condition_number(const Matrix& F) {
  const std::vector<double> values = singular_values(F);
  return values.back() > 0.0 ? values.front() / values.back() : std::numeric_limits<double>::infinity();
}

}  // namespace krrdistill::library
