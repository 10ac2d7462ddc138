// The products of float panels that the per-ISA translation units define.
#pragma once

#include <cstdint>

namespace krrdistill {

// A panel holds `columns` columns of a matrix, the numbers of a row beside each other, one row after the other.
struct FloatGramKernel {
  int64_t columns;
  // sums (columns x columns) += left^T right over `depth` rows: the first `rows` rows of it. Of a block on the
  // diagonal the lower triangle, and what shares its vectors.
  void (*multiply)(const float* left, const float* right, int64_t depth, int64_t rows, bool diagonal, float* sums);
};

const FloatGramKernel& float_gram_avx2();
const FloatGramKernel& float_gram_avx512();

}  // namespace krrdistill
