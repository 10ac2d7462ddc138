// Factors of a band and the diagonal of its inverse. The inverse Z of L L^T is full, but its diagonal blocks need only
// each other (Takahashi's recursion). With blocks of `width` columns L has two per block column,
//
//     D 0      D lower triangular, E upper triangular:     Z_last = (D D^T)^-1
//     E D'                                                 Z = D^-T (I + E^T Z' E) D^-1,   Z' the block below Z.
#include "cpu/band_cholesky.h"

#include <algorithm>

#include "common/checked_blas.h"
#include "common/checked_size.h"

namespace krrdistill {
namespace {

// out (n, n) <- D^-1, column by column. Not by LAPACK: the triangular solves of OpenBLAS start threads of their own for
// blocks of this size, and the caller is one of several threads already. Products of 64^3 do not.
void invert(const double* d, int64_t ld, int64_t n, double* out) {
  std::fill(out, out + n * n, 0.0);
  for (int64_t j = 0; j < n; ++j) {
    double* column = out + j * n;
    column[j] = 1.0;
    for (int64_t k = j; k < n; ++k) {
      const double* below = d + k * ld;
      const double value = column[k] / below[k];
      column[k] = value;
      for (int64_t i = k + 1; i < n; ++i) {
        column[i] -= value * below[i];
      }
    }
  }
}

// e (rows, width) <- the E below D, which ends at the edge of the band: zero under its diagonal.
void copy_coupling(const double* d, int64_t width, int64_t rows, double* e) {
  for (int64_t j = 0; j < width; ++j) {
    const int64_t count = std::min(j + 1, rows);
    const double* column = d + j * width + width;
    std::copy(column, column + count, e + j * rows);
    std::fill(e + j * rows + count, e + (j + 1) * rows, 0.0);
  }
}

// c (m, n) = op(a) b, of contiguous columns.
void multiply(char trans, int m, int n, int k, const double* a, const double* b, double* c) {
  char plain = 'N';
  double one = 1.0, zero = 0.0;
  int lda = trans == 'N' ? m : k;
  blas<double>().gemm(&trans, &plain, &m, &n, &k, &one, const_cast<double*>(a), &lda, const_cast<double*>(b), &k, &zero,
                      c, &m);
}

}  // namespace

int64_t band_cholesky_size(int64_t p) { return checked_product(p, band_width(p) + 1); }

int64_t trace_of_inverse_workspace(int64_t p) {
  const int64_t width = band_width(p);
  return 4 * width * width;
}

BandCholesky::BandCholesky(const BandReduction& reduction)
    : band_(reduction.band),
      p_(blas_int(reduction.p)),
      width_(blas_int(reduction.width)),
      ld_(blas_int(reduction.width + 1)) {}

bool BandCholesky::factor(double shift, double* out) const {
  const int64_t p = p_, ld = ld_;
  std::copy(band_, band_ + p * ld, out);
  for (int64_t i = 0; i < p; ++i) {
    out[i * ld] += shift;
  }
  char uplo = 'L';
  int n = p_, width = std::min(width_, p_ - 1), ldab = ld_, info = 0;
  blas<double>().pbtrf(&uplo, &n, &width, out, &ldab, &info);
  return info == 0;
}

void BandCholesky::solve(double* factor, double* columns, int count) const {
  char uplo = 'L';
  int n = p_, width = std::min(width_, p_ - 1), ldab = ld_, info = 0;
  blas<double>().pbtrs(&uplo, &n, &width, &count, factor, &ldab, columns, &n, &info);
}

double BandCholesky::trace_of_inverse(const double* factor, double* workspace) const {
  const int64_t width = width_, square = width * width;
  double* z = workspace;  // (n, n) of the block below, then of this one
  double* e = z + square;
  double* inverse = e + square;
  double* product = inverse + square;
  double trace = 0.0;
  int below = 0;
  for (int first = (p_ - 1) / width_ * width_; first >= 0; first -= width_) {
    const int n = std::min(width_, p_ - first);
    // One row less than that of band storage between columns: D is an ordinary lower triangle.
    const double* d = factor + static_cast<int64_t>(first) * ld_;
    if (below > 0) {
      copy_coupling(d, width, below, e);
      multiply('N', below, n, below, z, e, product);
      multiply('T', n, n, below, e, product, z);
    } else {
      std::fill(z, z + static_cast<int64_t>(n) * n, 0.0);
    }
    for (int64_t j = 0; j < n; ++j) {
      z[j * n + j] += 1.0;
    }
    invert(d, width, n, inverse);
    multiply('N', n, n, n, z, inverse, product);
    multiply('T', n, n, n, inverse, product, z);
    for (int64_t j = 0; j < n; ++j) {
      trace += z[j * n + j];
    }
    below = n;
  }
  return trace;
}

}  // namespace krrdistill
