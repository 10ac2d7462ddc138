// The product of two panels of floats, written over the vector type `Simd` of the including file,
// float_gram_{avx2,avx512}.cpp only. Everything has internal linkage, so that no instruction of one set can leak into
// another through the linker.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "cpu/float_gram_kernels.h"

namespace krrdistill {
namespace {

template <typename Simd>
constexpr int64_t panel_columns = Simd::vectors * Simd::lanes;

// Simd::rows rows of the product: numbers of the left panel, broadcast, times `Vectors` vectors of the right one. The
// sums stay in registers: the compiler must unroll all loops but that over the depth before it places them.
template <typename Simd, int64_t Vectors>
inline void multiply_rows(const float* left, const float* right, int64_t depth, float* sums) {
  constexpr int64_t columns = panel_columns<Simd>;
  // NOLINTNEXTLINE(modernize-avoid-c-arrays): std::array drops the alignment of vector types, with a warning
  typename Simd::Vector sum[Simd::rows][Vectors];
#pragma GCC unroll 16
  for (int64_t i = 0; i < Simd::rows; ++i) {
#pragma GCC unroll 4
    for (int64_t v = 0; v < Vectors; ++v) {
      sum[i][v] = Simd::zero();
    }
  }
#pragma GCC unroll 2
  for (int64_t row = 0; row < depth; ++row) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < Simd::rows; ++i) {
      const auto factor = Simd::broadcast(left[i]);
#pragma GCC unroll 4
      for (int64_t v = 0; v < Vectors; ++v) {
        sum[i][v] = Simd::multiply_add(sum[i][v], factor, Simd::load(right + Simd::lanes * v));
      }
    }
    left += columns;
    right += columns;
  }
#pragma GCC unroll 16
  for (int64_t i = 0; i < Simd::rows; ++i) {
#pragma GCC unroll 4
    for (int64_t v = 0; v < Vectors; ++v) {
      float* place = sums + i * columns + Simd::lanes * v;
      Simd::store(place, Simd::add(Simd::load(place), sum[i][v]));
    }
  }
}

// multiply_rows with as few vectors as `needed` says, a number that is known at run time only.
template <typename Simd, int64_t Vectors>
inline void multiply_needed(int64_t needed, const float* left, const float* right, int64_t depth, float* sums) {
  if constexpr (Vectors > 1) {
    if (needed < Vectors) {
      multiply_needed<Simd, Vectors - 1>(needed, left, right, depth, sums);
      return;
    }
  }
  multiply_rows<Simd, Vectors>(left, right, depth, sums);
}

template <typename Simd>
void multiply(const float* left, const float* right, int64_t depth, int64_t rows, bool diagonal, float* sums) {
  for (int64_t row = 0; row < rows; row += Simd::rows) {
    const int64_t needed = diagonal ? (row + Simd::rows - 1) / Simd::lanes + 1 : Simd::vectors;
    multiply_needed<Simd, Simd::vectors>(needed, left + row, right, depth, sums + row * panel_columns<Simd>);
  }
}

}  // namespace
}  // namespace krrdistill
