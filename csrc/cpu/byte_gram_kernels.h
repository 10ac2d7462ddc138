// The integer kernels that the per-ISA translation units define.
#pragma once

#include <cstdint>

namespace krrdistill {

constexpr int64_t panel_columns = 16;

// gram (16 x 16, row stride ld) += left^T right. A panel holds 16 columns of `pairs` pairs of rows, one 32-bit word of
// two int16 per pair and column, because a multiply-add instruction yields a0 b0 + a1 b1:
//
//     pair 0: c0 c1 ... c15 | pair 1: c0 c1 ... c15 | ...
using ByteGramKernel = void (*)(const int16_t* left, const int16_t* right, int64_t pairs, int32_t* gram, int64_t ld);

void byte_gram_avx2(const int16_t* left, const int16_t* right, int64_t pairs, int32_t* gram, int64_t ld);
void byte_gram_avx512vnni(const int16_t* left, const int16_t* right, int64_t pairs, int32_t* gram, int64_t ld);

}  // namespace krrdistill
