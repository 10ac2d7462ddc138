// Minimum-norm solutions of W x = r for a surjective W, the step of every preimage.
#pragma once

#include <cstdint>

namespace krrdistill {

// Doubles and ints of workspace that preimage_solve needs.
int64_t preimage_workspace(int64_t p, int64_t d, int64_t m);

// weight (p, d), p <= d, row-major, overwritten. rhs (m, p), overwritten. x (m, d): row i is W^+ rhs_i; may be rhs for
// p = d. Square W: LU with partial pivoting; wide W: QR of W^T. Returns the reciprocal condition number (1-norm) and
// leaves x untouched when it is below `rcond_floor`.
double preimage_solve(double* weight, double* rhs, double* x, int64_t p, int64_t d, int64_t m, double rcond_floor,
                      double* workspace, int* pivots);

}  // namespace krrdistill
