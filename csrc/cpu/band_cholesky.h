// Cholesky factors of B + shift I for a symmetric band matrix B, in O(p width^2), and what they give.
#pragma once

#include <cstdint>

#include "krrdistill/band.h"

namespace krrdistill {

constexpr int64_t solved_columns = 64;  // at a time: OpenBLAS starts threads for larger products

// Doubles of one factor, and of the workspaces of solve and trace_of_inverse.
int64_t band_cholesky_size(int64_t p);
int64_t columns_workspace(int64_t p);
int64_t trace_of_inverse_workspace(int64_t p);

// B in LAPACK's integers, checked when it is made: its methods run on OpenMP's threads, which no exception may leave.
class BandCholesky {
 public:
  explicit BandCholesky(const BandReduction& reduction);

  // out <- the factor of B + shift I; false when that is not positive definite.
  bool factor(double shift, double* out) const;

  // Columns first ... end - 1 of a column-major matrix (p, .) <- (L L^T)^-1 columns.
  void solve(const double* factor, double* columns, int64_t first, int64_t end, double* workspace) const;

  // tr((L L^T)^-1).
  double trace_of_inverse(const double* factor, double* workspace) const;

 private:
  const double* band_;
  int p_, width_, ld_;
};

}  // namespace krrdistill
