#pragma once

#include <cstdint>
#include <vector>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

// Systems (A_b + shift_b I) X_b = B_b of one size, on the device. A_b = matrix + b stride (p, p) row-major, of which
// the lower triangle is read (stride 0: one matrix for all); shift (batch) or null; B_b = rhs + b rhs_stride (r, n),
// row-major (stride 0: the same for all). solutions (batch, r, n), which may be rhs itself unless that is shared, are
// undefined where the factorisation failed. r = 0 only factors.
struct Systems {
  const double* matrix;
  int64_t stride;
  const double* shift;
  const double* rhs;
  int64_t rhs_stride;
  double* solutions;
  int64_t batch;
  int64_t n;
  int64_t r;
};

// What a factorisation L L^T says of its matrix.
struct Pivots {
  double least;    // min_j L_jj^2, which the smallest eigenvalue is not above
  int64_t failed;  // 0, or the order of the leading minor that is not positive definite: `least` is of those before
};

std::vector<Pivots> cholesky_solve(Scope& scope, const Systems& systems);

}  // namespace krrdistill::cuda
