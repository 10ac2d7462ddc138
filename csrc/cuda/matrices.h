// What operations on dense float64 matrices on the device share.
#pragma once

#include <cstdint>

#include "cuda/dense.h"
#include "cuda/runtime.h"

namespace krrdistill::cuda {

// A matrix on the device: itself, or a copy for this operation.
const double* operand(Scope& scope, const Operand& a);

// A copy of it there that may be overwritten.
double* copy_of(Scope& scope, const Operand& a);

// What a routine of cuSOLVER says: 0, or where it failed. Throws DeviceError for arguments that it refuses.
int info_of(Scope& scope, const char* routine, const int* device_info);

// A column-major a (n, n) becomes its Cholesky factor; 0, or the order of a leading minor that is not positive
// definite.
int cholesky_in_place(Scope& scope, cublasFillMode_t triangle, int64_t n, double* a);

// out (n, n) = a + shift I for a symmetric a; sums (n) are those of the magnitudes in each column.
void shift_diagonal(cudaStream_t stream, const double* a, int64_t n, double shift, double* out, double* sums);

}  // namespace krrdistill::cuda
