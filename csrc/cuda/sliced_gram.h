// F^T F of float32 features by integer tensor cores. Column j of a tile is rounded to 24 bits of its largest magnitude,
// f = u_j (2^16 S0 + 2^8 S1 + S2) with digits of a byte, and of the nine products of digits
//
//     2^32 S0 S0 + 2^24 (S0 S1 + S1 S0) + 2^16 (S0 S2 + S2 S0 + S1 S1) + 2^8 (S1 S2 + S2 S1) + S2 S2
//
// all but the last are formed, in exact sums of integers, and added in float64. S1 S0 is the mirror of S0 S1, which is
// formed whole. Columns with outliers lose digits: `bound` tells.
//
// The slices lie one below the other, so that S0 [S0 S1 S2] and S1 [S1 S2] are one product each. Of a narrow map they
// fill the device, where five products leave half of it idle; of a wide one five are better, two of which are
// triangles.
#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

class SlicedGram {
 public:
  static int64_t fixed_bytes(int64_t p);
  static int64_t row_bytes(int64_t p);
  static constexpr int64_t most_rows = 65536;  // of one sum: a row adds at most 2^14, int32 holds twice as many

  SlicedGram(Scope& scope, int64_t p, int64_t rows);

  // gram += on the lower triangle (row-major), features (count, stride pitch(p)).
  void add(const float* features, int64_t count, double* gram);

  // An estimate, with a margin, of ||dG||_2 / ||G||_2 for the G of all rows so far; waits for it. NaN or infinity
  // where G is not finite.
  double bound(const double* gram) const;

  // What it will be of `rows` rows that are like those so far, if none has a larger magnitude.
  double outlook(const double* gram, int64_t rows) const;

 private:
  // Of G and the units.
  struct Sizes {
    double square = 0.0;  // ||G||_F^2
    double trace = 0.0;
    double most = 0.0;  // the largest u
    double all = 0.0;   // ||u||^2
  };
  Sizes sizes(const double* gram) const;
  double bound_of(const Sizes& sizes, double norm, double rows) const;
  void multiply(int64_t depth);

  Scope& scope_;
  int64_t p_;
  int64_t order_;      // byte_order(p)
  int64_t ld_;         // of the slices
  int64_t rows_ = 0;   // so far
  unsigned* largest_;  // magnitude in each column of a tile, as the bits of a float
  float* inverse_;     // 1 / u, 0 where u is NaN
  double* unit_;       // u, NaN where the features are not finite
  double* worst_;      // the largest u so far
  double* squares_;    // of the rows of G, and its diagonal, (2, p)
  int8_t* slices_;     // (3, order, ld)
  bool joined_;        // whether two products take less time than five
  int32_t* products_;  // S0 [S0 S1 S2], (order, 3 order), then S1 [S1 S2], (order, 2 order)
};

}  // namespace krrdistill::cuda
