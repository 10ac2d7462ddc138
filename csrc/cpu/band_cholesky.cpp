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

// c (m, n) = alpha op(a) b + beta c.
void multiply(char trans, int m, int n, int k, double alpha, const double* a, int lda, const double* b, int ldb,
              double beta, double* c, int ldc) {
  char plain = 'N';
  blas<double>().gemm(&trans, &plain, &m, &n, &k, &alpha, const_cast<double*>(a), &lda, const_cast<double*>(b), &ldb,
                      &beta, c, &ldc);
}

// c (m, n) = op(a) b, of contiguous columns.
void multiply(char trans, int m, int n, int k, const double* a, const double* b, double* c) {
  multiply(trans, m, n, k, 1.0, a, trans == 'N' ? m : k, b, k, 0.0, c, m);
}

void copy_columns(const double* from, int64_t ld_from, int64_t rows, int64_t count, double* to, int64_t ld_to) {
  for (int64_t j = 0; j < count; ++j) {
    std::copy(from + j * ld_from, from + j * ld_from + rows, to + j * ld_to);
  }
}

}  // namespace

int64_t band_cholesky_size(int64_t p) { return checked_product(p, band_width(p) + 1); }

int64_t columns_workspace(int64_t p) {
  const int64_t width = band_width(p);
  return checked_sum(checked_product(p, width), width * width, width * solved_columns);
}

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

void BandCholesky::solve(const double* factor, double* columns, int64_t first, int64_t end, double* workspace) const {
  const int64_t width = width_, p = p_;
  double* inverses = workspace;  // of the blocks D, each contiguous
  double* e = inverses + p * width;
  double* solved = e + width * width;
  for (int64_t j = 0; j < p; j += width) {
    invert(factor + j * ld_, width, std::min(width, p - j), inverses + j * width);
  }
  for (; first < end; first += solved_columns) {
    const int count = static_cast<int>(std::min<int64_t>(solved_columns, end - first));
    double* x = columns + first * p;
    for (int64_t j = 0; j < p; j += width) {  // L y = x
      const int n = static_cast<int>(std::min(width, p - j)), below = static_cast<int>(std::min(width, p - j - n));
      multiply('N', n, count, n, 1.0, inverses + j * width, n, x + j, p_, 0.0, solved, n);
      copy_columns(solved, n, n, count, x + j, p);
      if (below > 0) {
        copy_coupling(factor + j * ld_, width, below, e);
        multiply('N', below, count, n, -1.0, e, below, solved, n, 1.0, x + j + n, p_);
      }
    }
    for (int64_t j = (p - 1) / width * width; j >= 0; j -= width) {  // L^T x = y
      const int n = static_cast<int>(std::min(width, p - j)), below = static_cast<int>(std::min(width, p - j - n));
      if (below > 0) {
        copy_coupling(factor + j * ld_, width, below, e);
        multiply('T', n, count, below, -1.0, e, below, x + j + n, p_, 1.0, x + j, p_);
      }
      multiply('T', n, count, n, 1.0, inverses + j * width, n, x + j, p_, 0.0, solved, n);
      copy_columns(solved, n, n, count, x + j, p);
    }
  }
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
