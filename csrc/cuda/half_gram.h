// X^T X of rows of float16 or bfloat16 by tensor cores, without converting them: their products are exact in float32.
// What the tensor cores add up they truncate, so they add 16 rows only; everything after that is rounded to nearest:
//
//     16 rows     tensor cores, from zero         bias of 1 to 2 u,  u = 2^-24
//     256 rows    float32 in registers            16 terms
//     2048 rows   float32 in shared memory        8 terms
//     all rows    float64, slabs in their order   two runs have the same bits
#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

class HalfGram {
 public:
  // How many slabs of 2048 rows are summed beside each other, so that the device is full and a quarter of its memory,
  // or of the budget, holds their sums, for tiles of at most `rows` rows.
  static int64_t slabs_for(Scope& scope, int64_t p, int64_t rows);
  static int64_t fixed_bytes(int64_t p, int64_t slabs);

  HalfGram(Scope& scope, int64_t p, int64_t slabs);

  // gram += on the lower triangle (row-major), rows (count, stride pitch(p)) of __half or __nv_bfloat16.
  template <typename Half>
  void add(const Half* rows, int64_t count, double* gram);

  // An estimate of ||dG||_2 / ||G||_2 for the G of all rows so far; waits for it. Infinity where products left the
  // range of float32, upwards or downwards, as those of bfloat16 may.
  double bound(const double* gram) const;

 private:
  Scope& scope_;
  int64_t p_;
  int64_t slabs_;
  int64_t rows_ = 0;  // so far
  float* sums_;       // (slabs, blocks on and below the diagonal, 128, 128)
};

}  // namespace krrdistill::cuda
