// Exact products of bytes: integer sums of c c^T with c = u - 128 over rows u of p bytes. One row adds at most 2^14 to
// an entry, so int32 holds 2^17 - 1 rows. Integers add exactly: threads, blocks and instruction set change nothing.
#pragma once

#include <cstdint>

#include "krrdistill/feature_map.h"

namespace krrdistill {

constexpr int byte_centre = 128;
constexpr int64_t byte_sum_rows = 65536;  // of one sum, at most: half of what int32 holds

inline const uint8_t* input_bytes(const Input& input, int64_t i) {
  return static_cast<const uint8_t*>(input.data) + input.row_of(i) * input.row_stride;
}

// Rows of one call, at most.
int64_t byte_block_rows();

// Rows, columns and row stride of the integer Gram matrix: p rounded up to whole panels of the kernel.
int64_t byte_gram_order(int64_t p);

// Doubles of workspace.
int64_t byte_gram_workspace(int64_t p);

// gram += the products of rows [first, first + count) of the input, on the lower triangle (row-major). What lies above
// the triangle or beyond p is undefined.
void byte_gram(const Input& input, int64_t first, int64_t count, int64_t p, int32_t* gram, double* workspace);

}  // namespace krrdistill
