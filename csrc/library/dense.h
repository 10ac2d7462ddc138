// Dense linear algebra on Matrix, over the BLAS and LAPACK of the library.
#pragma once

#include <cstdint>
#include <vector>

#include "krrdistill/matrix.h"

namespace krrdistill::library {

enum class Use : bool { plain, transposed };

// op(A) op(B).
Matrix product(const Matrix& A, const Matrix& B, Use use_a = Use::plain, Use use_b = Use::plain);
Matrix transpose(const Matrix& A);
double norm(const std::vector<double>& values);  // Euclidean, of a matrix Frobenius's
double dot(const std::vector<double>& a, const std::vector<double>& b);
bool all_finite(const std::vector<double>& values);

// A (m, n) = left diag(values) right with left (m, r), right (r, n), r = min(m, n), values descending.
struct Svd {
  Matrix left;
  std::vector<double> values;
  Matrix right;
};
Svd svd(Matrix A);
std::vector<double> singular_values(Matrix A);
int64_t rank(const std::vector<double>& singular_values, double cutoff);  // those over cutoff times the largest

// A = Q R, A (m, n), m >= n: Householder vectors and R as LAPACK leaves them, that is of A transposed.
struct Qr {
  int64_t m = 0;
  int64_t n = 0;
  Matrix reflections;  // (n, m): column-major (m, n)
  std::vector<double> tau;

  [[nodiscard]] Matrix q() const;           // Q (m, n)
  [[nodiscard]] Matrix inverse_rt() const;  // R^-T (n, n). Throws DataError where R is singular
  void reflect_columns(Matrix& C) const;    // C H^T for the whole product H (m, m) of reflections
  void reflect_rows(Matrix& C) const;       // H C
};
Qr qr(const Matrix& A);

// The Cholesky factor of a symmetric matrix plus shift I, and an estimate of its condition number, infinite where it is
// not positive definite.
struct Cholesky {
  Cholesky(Matrix symmetric, double shift);
  [[nodiscard]] Matrix solve(const Matrix& B) const;  // A^-1 B

  Matrix factor;
  double condition;
};

}  // namespace krrdistill::library
