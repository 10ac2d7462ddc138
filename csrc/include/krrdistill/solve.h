// Batched Cholesky solves of symmetric positive definite systems.
#pragma once

#include <cstdint>

namespace krrdistill {

// For each b: A_b X_b = B_b. a (batch, n, n) is overwritten by the factors, rhs (batch, r, n) by the solutions:
// each right-hand side is one contiguous row. Throws NotPositiveDefinite.
template <typename T>
void solve_spd(T* a, T* rhs, int64_t batch, int64_t n, int64_t r);

}  // namespace krrdistill
