#pragma once

#include <cstdint>
#include <vector>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

// Systems (A_b + shift_b I) X_b = B_b of one size, on the device: A_b = matrix + b stride (stride 0: one matrix for
// all), shift (batch) or null, rhs (batch, r, n) overwritten by the solutions where the factorisation succeeded; r = 0
// only factors.
struct Systems {
  const double* matrix;
  int64_t stride;
  const double* shift;
  double* rhs;
  int64_t batch;
  int64_t n;
  int64_t r;
};

// For each system 0, or the order of the leading minor that is not positive definite.
std::vector<int> cholesky_solve(Scope& scope, const Systems& systems);

}  // namespace krrdistill::cuda
