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

// The same of 32 columns, as tiles of a matrix unit: int8, four rows to a word of 32 bits. A block of 64 rows is two
// tiles of 16 columns; `left` tiles have a row of words for each column, `right` ones a column.
constexpr int64_t tile_columns = 32;
constexpr int64_t tile_rows = 64;
constexpr int64_t tile_block = tile_rows * tile_columns;  // bytes

struct ByteTiles {
  // From 64 rows, each from its first of the 32 columns on.
  void (*pack)(const uint8_t* const* rows, int8_t* left, int8_t* right);
  void (*begin)();  // before and after the products of a thread
  void (*end)();
  void (*multiply)(const int8_t* left, const int8_t* right, int64_t blocks, int32_t* gram, int64_t ld);
};

const ByteTiles& byte_tiles_amx();

}  // namespace krrdistill
