// Products of float matrices by a matrix unit, as accurate as float32: slices of 8 bits (cpu/slices.h), sums in float32
// over 512 terms and in double beyond.
#pragma once

#include <cstdint>

namespace krrdistill {

// Whether this CPU and the current instruction set have such a unit, and products of that size are worth the packing.
bool slices_pay(int64_t m, int64_t n, int64_t depth);

// Floats of workspace of the two functions below.
int64_t slice_syrk_workspace(int64_t rows, int64_t p);
int64_t slice_gemm_workspace(int64_t rows, int64_t outputs, int64_t inputs);

// gram (p, p) += X^T X for X (rows, p), both row-major: the lower triangle; above it only blocks on the diagonal.
void slice_syrk(const float* X, int64_t rows, int64_t p, double* gram, float* workspace);

// out (rows, outputs) = X W^T for X (rows, inputs) and W (outputs, inputs) with row stride ld, all row-major.
void slice_gemm(const float* X, const float* W, int64_t ld, int64_t rows, int64_t outputs, int64_t inputs, float* out,
                float* workspace);

}  // namespace krrdistill
