// The rounds of one row, which stays in the L1 cache; the transform itself is in hadamard_impl.h.
#include "krrdistill/hadamard.h"

#include <algorithm>

#include "krrdistill/elementwise.h"

namespace krrdistill {
namespace {

template <typename T>
void swap_ends(const Hadamard<T>& a, T* x) {
  const int64_t ends = (a.inputs - a.block + 1) / 2;
  std::swap_ranges(x, x + ends, x + a.inputs - ends);
}

}  // namespace

template <typename T>
void hadamard_apply(const Hadamard<T>& a, T* x, T* out) {
  const auto& kernels = elementwise<T>();
  T* last = x + a.inputs - a.block;
  for (int64_t round = 0; round < a.rounds; ++round) {
    const T* diagonal = a.diagonals + round * 2 * a.block;
    swap_ends(a, x);
    kernels.multiply(x, diagonal, x, a.block);
    kernels.walsh_hadamard(x, a.block);
    kernels.multiply(last, diagonal + a.block, last, a.block);
    kernels.walsh_hadamard(last, a.block);
  }
  kernels.multiply(x, a.scale, out, a.outputs);
}

void hadamard_solve(const Hadamard<double>& a, const double* rhs, double* x, int64_t m) {
  const auto& kernels = elementwise<double>();
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < m; ++i) {
    double* row = x + i * a.inputs;
    double* last = row + a.inputs - a.block;
    for (int64_t j = 0; j < a.outputs; ++j) {
      row[j] = rhs[i * a.outputs + j] / a.scale[j];
    }
    std::fill(row + a.outputs, row + a.inputs, 0.0);
    for (int64_t round = a.rounds - 1; round >= 0; --round) {
      const double* diagonal = a.diagonals + round * 2 * a.block;
      kernels.walsh_hadamard(last, a.block);
      kernels.multiply(last, diagonal + a.block, last, a.block);
      kernels.walsh_hadamard(row, a.block);
      kernels.multiply(row, diagonal, row, a.block);
      swap_ends(a, row);
    }
  }
}

template void hadamard_apply(const Hadamard<float>&, float*, float*);
template void hadamard_apply(const Hadamard<double>&, double*, double*);

}  // namespace krrdistill
