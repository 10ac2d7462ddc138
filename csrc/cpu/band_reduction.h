// Orthogonal reduction of a symmetric matrix to a band: G = Q B Q^T.
#pragma once

#include <cstdint>

namespace krrdistill {

// What reduce_to_band leaves: the Householder vectors of Q in the caller's matrix, their triangular factors,
// and B. All pointers are the caller's.
struct BandReduction {
  int64_t p;
  int64_t width;    // subdiagonals of B
  double* vectors;  // (p, p), on entry G: panel j holds the vectors of rows j + width ... p - 1
  double* factors;  // (p, width): one (width, width) upper triangular T per panel, H = I - V T V^T
  double* band;     // (p, width + 1), LAPACK's lower band storage of B
};

// Subdiagonals that suit order p.
int64_t band_width(int64_t p);

// Doubles of workspace for reduce_to_band, and for apply_q with `columns` columns.
int64_t reduce_to_band_workspace(int64_t p);
int64_t apply_q_workspace(int64_t p, int64_t columns);

// Reads and overwrites the lower triangle (column-major) of r.vectors, fills r.factors and r.band.
void reduce_to_band(const BandReduction& r, double* workspace);

// columns <- Q columns, or Q^T columns; `columns` is (p, count) column-major.
void apply_q(const BandReduction& r, bool transposed, double* columns, int64_t count, double* workspace);

}  // namespace krrdistill
