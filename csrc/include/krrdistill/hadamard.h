// A diagonal times an orthogonal matrix in O(d log d):  A = diag(scale) (R_r ... R_1)[:outputs].
//
//     h:      |--c--|---------------------------|--c--|     a round R: the ends of c coordinates change places,
//     first:  [  H D on the first n          ]              then H D on the first n = 2^a <= d coordinates,
//     last:             [  H D' on the last n         ]     then H D' on the last n; c = (d - n + 1) / 2
//
// H is the Walsh-Hadamard matrix in Sylvester's order, D and D' are diagonals of signs. d < 2 n: the blocks cover all.
#pragma once

#include <cstdint>

namespace krrdistill {

template <typename T>
struct Hadamard {
  const T* diagonals = nullptr;  // (rounds, 2, block): signs / sqrt(block), which makes H D orthogonal
  const T* scale = nullptr;      // (outputs)
  int64_t rounds = 0;
  int64_t block = 1;  // the largest power of two <= inputs
  int64_t inputs = 0;
  int64_t outputs = 0;  // at most inputs
};

// out (outputs) = A x. Overwrites x (inputs).
template <typename T>
void hadamard_apply(const Hadamard<T>& a, T* x, T* out);

// Row i of x (m, inputs) = A^+ rhs_i, rhs (m, outputs): the least-norm solution, by the transposed rounds.
void hadamard_solve(const Hadamard<double>& a, const double* rhs, double* x, int64_t m);

}  // namespace krrdistill
