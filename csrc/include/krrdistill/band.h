// A symmetric matrix reduced to a band once, G = Q B Q^T, and what it then gives for any shift in O(p^2) per column: a
// long ridge path whose models need not all be held.
#pragma once

#include <cstdint>

namespace krrdistill {

// Subdiagonals of B that suit order p.
int64_t band_width(int64_t p);

// What reduce_to_band leaves: the Householder vectors of Q in the caller's matrix, their triangular factors, and B. All
// pointers are the caller's.
struct BandReduction {
  int64_t p;
  int64_t width;    // subdiagonals of B
  double* vectors;  // (p, p), on entry G: panel j holds the vectors of rows j + width ... p - 1
  double* factors;  // (p, width): one (width, width) upper triangular T per panel, H = I - V T V^T
  double* band;     // (p, width + 1), LAPACK's lower band storage of B
};

// Doubles of workspace of the functions below.
int64_t reduce_to_band_workspace(int64_t p);
int64_t largest_of_band_workspace(int64_t p);
int64_t apply_q_workspace(int64_t p, int64_t columns);
int64_t solve_band_workspace(int64_t p);

// Reads and overwrites the lower triangle (column-major) of r.vectors, fills r.factors and r.band.
void reduce_to_band(const BandReduction& r, double* workspace);

// The largest eigenvalue of B, and so of G, to a relative 1e-3.
double largest_of_band(const BandReduction& r, double* workspace);

// columns <- Q columns, or Q^T columns; `columns` is (p, count) column-major.
void apply_q(const BandReduction& r, bool transposed, double* columns, int64_t count, double* workspace);

// columns (p, count) <- (B + shift I)^-1 columns; false, and nothing is done, where B + shift I is not positive
// definite.
bool solve_band(const BandReduction& r, double shift, double* columns, int64_t count, double* workspace);

}  // namespace krrdistill
