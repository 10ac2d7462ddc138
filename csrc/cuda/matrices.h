// Element-wise work on dense float64 matrices on the device.
#pragma once

#include <cstdint>

#include "cuda/dense.h"
#include "cuda/runtime.h"

namespace krrdistill::cuda {

// A matrix on the device: itself, or a copy for this operation.
const double* operand(Scope& scope, const Operand& a);

// A copy of it there that may be overwritten.
double* copy_of(Scope& scope, const Operand& a);

// out (n, n) = a + shift I for a symmetric a; sums (n) are those of the magnitudes in each column.
void shift_diagonal(cudaStream_t stream, const double* a, int64_t n, double shift, double* out, double* sums);

}  // namespace krrdistill::cuda
