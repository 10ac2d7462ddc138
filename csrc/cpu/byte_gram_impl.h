// The product of two panels, written over the vector type `Simd` of the including file, byte_gram_{avx2,avx512vnni}.cpp
// only. Everything has internal linkage, so that no instruction of one set can leak into another through the linker.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "cpu/byte_gram_kernels.h"

namespace krrdistill {
namespace {

// Simd::rows rows of the product: words of the left panel, broadcast, times all words of the right one. The sums stay
// in registers: the compiler must unroll all loops but that over pairs before it places them.
template <typename Simd>
inline void multiply_rows(const int16_t* left, const int16_t* right, int64_t pairs, int32_t* gram, int64_t ld) {
  constexpr int64_t vectors = panel_columns / Simd::lanes;
  // NOLINTNEXTLINE(modernize-avoid-c-arrays): std::array drops the alignment of vector types, with a warning
  typename Simd::Vector sum[Simd::rows][vectors];
#pragma GCC unroll 16
  for (int64_t i = 0; i < Simd::rows; ++i) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < vectors; ++v) {
      sum[i][v] = Simd::load(gram + i * ld + Simd::lanes * v);
    }
  }
#pragma GCC unroll 4
  for (int64_t pair = 0; pair < pairs; ++pair) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < Simd::rows; ++i) {
      int32_t word = 0;
      std::memcpy(&word, left + 2 * i, sizeof word);
      const auto factor = Simd::broadcast(word);
#pragma GCC unroll 2
      for (int64_t v = 0; v < vectors; ++v) {
        sum[i][v] = Simd::multiply_add(sum[i][v], factor, Simd::load(right + 2 * Simd::lanes * v));
      }
    }
    left += 2 * panel_columns;
    right += 2 * panel_columns;
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < Simd::rows; ++i) {
#pragma GCC unroll 2
    for (int64_t v = 0; v < vectors; ++v) {
      Simd::store(gram + i * ld + Simd::lanes * v, sum[i][v]);
    }
  }
}

template <typename Simd>
inline void multiply(const int16_t* left, const int16_t* right, int64_t pairs, int32_t* gram, int64_t ld) {
  for (int64_t row = 0; row < panel_columns; row += Simd::rows) {
    multiply_rows<Simd>(left + 2 * row, right, pairs, gram + row * ld, ld);
  }
}

}  // namespace
}  // namespace krrdistill
