// Factors of a band and the diagonal of its inverse. The inverse Z of L L^T is full, but its diagonal blocks need only
// each other (Takahashi's recursion). With blocks of `width` columns L has two per block column,
//
//     D 0      D lower triangular, E upper triangular:     Z_last = (D D^T)^-1
//     E D'                                                 Z = D^-T (I + E^T Z' E) D^-1,   Z' the block below Z.
#include "cpu/band_cholesky.h"

#include <algorithm>
#include <utility>

#include "common/checked_blas.h"

namespace krrdistill {
namespace {

// columns (n, count) <- D^-T columns
void solve_transposed(double* d, int ld, int n, double* columns, int count) {
  char uplo = 'L', trans = 'T', diag = 'N';
  int info = 0;
  blas<double>().trtrs(&uplo, &trans, &diag, &n, &count, d, &ld, columns, &n, &info);
}

void multiply(char trans, int m, int n, int k, const double* a, const double* b, double* c) {
  char plain = 'N';
  double one = 1.0, zero = 0.0;
  int lda = trans == 'N' ? m : k;
  blas<double>().gemm(&trans, &plain, &m, &n, &k, &one, const_cast<double*>(a), &lda, const_cast<double*>(b), &k, &zero,
                      c, &m);
}

void transpose(double* a, int n) {
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < j; ++i) {
      std::swap(a[static_cast<int64_t>(j) * n + i], a[static_cast<int64_t>(i) * n + j]);
    }
  }
}

}  // namespace

int64_t band_cholesky_size(int64_t p) { return p * (band_width(p) + 1); }

int64_t trace_of_inverse_workspace(int64_t p) {
  const int64_t width = band_width(p);
  return 3 * width * width;
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

double BandCholesky::trace_of_inverse(double* factor, double* workspace) const {
  const int64_t square = static_cast<int64_t>(width_) * width_;
  double* z = workspace;  // (n, n) of the block below, then of this one
  double* e = z + square;
  double* product = e + square;
  double trace = 0.0;
  int below = 0;
  for (int first = (p_ - 1) / width_ * width_; first >= 0; first -= width_) {
    const int n = std::min(width_, p_ - first);
    // One row less than that of band storage between columns: D is an ordinary lower triangle.
    double* d = factor + static_cast<int64_t>(first) * ld_;
    if (below > 0) {
      for (int j = 0; j < n; ++j) {
        const int count = std::min(j + 1, below);  // E ends at the edge of the band
        const double* column = d + static_cast<int64_t>(j) * width_ + width_;
        std::copy(column, column + count, e + static_cast<int64_t>(j) * below);
        std::fill(e + static_cast<int64_t>(j) * below + count, e + static_cast<int64_t>(j + 1) * below, 0.0);
      }
      multiply('N', below, n, below, z, e, product);
      multiply('T', n, n, below, e, product, z);
    } else {
      std::fill(z, z + static_cast<int64_t>(n) * n, 0.0);
    }
    for (int j = 0; j < n; ++j) {
      z[static_cast<int64_t>(j) * n + j] += 1.0;
    }
    solve_transposed(d, width_, n, z, n);
    transpose(z, n);  // what is between is symmetric: D^-T S D^-1 = D^-T (D^-T S)^T
    solve_transposed(d, width_, n, z, n);
    for (int j = 0; j < n; ++j) {
      trace += z[static_cast<int64_t>(j) * n + j];
    }
    below = n;
  }
  return trace;
}

}  // namespace krrdistill
