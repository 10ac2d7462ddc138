// Householder reduction to a band, `width` columns at a time. All but 1 % of the 4/3 p^3 flops are SYMM and SYR2K,
// so it runs at the speed of matrix products: p = 3072 on 2 cores of an AMD EPYC (AVX2) takes 0.7 s, where the
// reduction to tridiagonal form (dsytrd), half of it matrix-vector products bound by memory, takes 2.4 s.
#include <algorithm>

#include "common/checked_blas.h"
#include "common/checked_size.h"
#include "common/lanczos.h"
#include "krrdistill/band.h"
#include "krrdistill/interrupt.h"

namespace krrdistill {
namespace {

constexpr int64_t inner_block = 16;  // of the QR factorisation of a panel

// Reflectors of the panel that starts at column j: it has p - j - width rows.
int64_t reflectors(const BandReduction& r, int64_t j) { return std::min(r.width, r.p - j - r.width); }

bool has_panel(const BandReduction& r, int64_t j) { return r.p - j - r.width > 1; }

// The V (rows, count) of a panel with its unit diagonal and zeros above, which hold R in the matrix.
void unpack_vectors(const double* panel, int64_t ld, int64_t rows, int64_t count, double* v) {
  for (int64_t c = 0; c < count; ++c) {
    double* column = v + c * rows;
    std::fill(column, column + c, 0.0);
    column[c] = 1.0;
    std::copy(panel + c * ld + c + 1, panel + c * ld + rows, column + c + 1);
  }
}

// panel = V R in place, and T of H_1 ... H_count = I - V T V^T.
void factor_panel(double* panel, int64_t ld, int64_t rows, int64_t columns, double* v, double* t, int64_t ldt,
                  double* workspace) {
  const int64_t count = std::min(rows, columns);
  int im = blas_int(rows), in = blas_int(columns), inb = blas_int(std::min(inner_block, count)), ild = blas_int(ld);
  int info = 0;
  double* blocks = workspace;
  double* work = blocks + inner_block * columns;
  double* tau = work + inner_block * columns;
  blas<double>().geqrt(&im, &in, &inb, panel, &ild, blocks, &inb, work, &info);
  check_info("geqrt", info);
  for (int64_t c = 0; c < count; ++c) {  // blocks (inb, count): the diagonal of each block's T holds its tau
    tau[c] = blocks[c * inb + c % inb];
  }
  unpack_vectors(panel, ld, rows, count, v);
  char direct = 'F', storev = 'C';
  int ik = blas_int(count), ildt = blas_int(ldt);
  std::fill(t, t + ldt * count, 0.0);
  blas<double>().larft(&direct, &storev, &im, &ik, v, &im, tau, t, &ildt);
}

// A <- H^T A H on the lower triangle of A (n, n), for H = I - V T V^T with V (n, k):
// A - V X^T - X V^T with W = A V T, X = W - V (T^T V^T W) / 2.
void update_trailing(double* a, int64_t ld, int64_t n, int64_t k, const double* v, const double* t, int64_t ldt,
                     double* workspace) {
  double* av = workspace;
  double* x = av + n * k;
  double* vw = x + n * k;
  double* s = vw + k * k;
  symm<double>(n, k, 1.0, a, ld, v, n, 0.0, av, n);
  gemm<double>('N', 'N', n, k, k, 1.0, av, n, t, ldt, 0.0, x, n);
  gemm<double>('T', 'N', k, k, n, 1.0, v, n, x, n, 0.0, vw, k);
  gemm<double>('T', 'N', k, k, k, 1.0, t, ldt, vw, k, 0.0, s, k);
  gemm<double>('N', 'N', n, k, k, -0.5, v, n, s, k, 1.0, x, n);
  syr2k<double>(n, k, -1.0, v, n, x, n, 1.0, a, ld);
}

// y = B x
void multiply(const BandReduction& r, const double* x, double* y) {
  const int64_t ld = r.width + 1;
  std::fill(y, y + r.p, 0.0);
  for (int64_t j = 0; j < r.p; ++j) {
    const double* column = r.band + j * ld;
    const int64_t count = std::min(ld, r.p - j);
    double sum = column[0] * x[j];
    for (int64_t i = 1; i < count; ++i) {
      y[j + i] += column[i] * x[j];
      sum += column[i] * x[j + i];
    }
    y[j] += sum;
  }
}

void extract_band(const BandReduction& r) {
  for (int64_t j = 0; j < r.p; ++j) {
    double* out = r.band + j * (r.width + 1);
    const int64_t count = std::min(r.width + 1, r.p - j);
    std::copy(r.vectors + j * r.p + j, r.vectors + j * r.p + j + count, out);
    std::fill(out + count, out + r.width + 1, 0.0);
  }
}

}  // namespace

int64_t band_width(int64_t p) { return p >= 2048 ? 64 : 32; }

int64_t reduce_to_band_workspace(int64_t p) {
  const int64_t width = band_width(p);
  return checked_sum(checked_product(p, 3 * width), 2 * width * width, (2 * inner_block + 1) * width);
}

int64_t largest_of_band_workspace(int64_t p) { return lanczos_workspace(p); }

int64_t apply_q_workspace(int64_t p, int64_t columns) {
  const int64_t width = band_width(p);
  return checked_product(width, checked_sum(p, checked_product(2, columns)));
}

void reduce_to_band(const BandReduction& r, double* workspace) {
  double* v = workspace;
  double* rest = v + r.p * r.width;
  for (int64_t j = 0; has_panel(r, j); j += r.width) {
    check_interrupt();
    const int64_t first = j + r.width, rows = r.p - first;
    double* t = r.factors + j * r.width;
    factor_panel(r.vectors + j * r.p + first, r.p, rows, r.width, v, t, r.width, rest);
    update_trailing(r.vectors + first * r.p + first, r.p, rows, reflectors(r, j), v, t, r.width, rest);
  }
  extract_band(r);
}

double largest_of_band(const BandReduction& r, double* workspace) {
  return largest_eigenvalue(r.p, [&r](const double* x, double* y) { multiply(r, x, y); }, workspace);
}

void apply_q(const BandReduction& r, bool transposed, double* columns, int64_t count, double* workspace) {
  double* v = workspace;
  double* vx = v + r.p * r.width;
  double* tvx = vx + r.width * count;
  int64_t panels = 0;
  while (has_panel(r, panels * r.width)) {
    ++panels;
  }
  for (int64_t step = 0; step < panels; ++step) {  // Q = H_1 H_2 ...: Q^T starts with the first
    check_interrupt();
    const int64_t j = (transposed ? step : panels - 1 - step) * r.width;
    const int64_t first = j + r.width, rows = r.p - first, k = reflectors(r, j);
    unpack_vectors(r.vectors + j * r.p + first, r.p, rows, k, v);
    gemm<double>('T', 'N', k, count, rows, 1.0, v, rows, columns + first, r.p, 0.0, vx, k);
    gemm<double>(transposed ? 'T' : 'N', 'N', k, count, k, 1.0, r.factors + j * r.width, r.width, vx, k, 0.0, tvx, k);
    gemm<double>('N', 'N', rows, count, k, -1.0, v, rows, tvx, k, 1.0, columns + first, r.p);
  }
}

}  // namespace krrdistill
