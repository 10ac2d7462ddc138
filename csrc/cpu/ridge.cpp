// One orthogonal reduction G = Q B Q^T to a band serves every lambda: B + lambda I is factored in O(p width^2) and
// solved in O(p width) per right-hand side, and Q is applied once to the k columns of C and once to all solutions.
#include "krrdistill/ridge.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/checked_blas.h"
#include "common/threads.h"
#include "cpu/band_reduction.h"

namespace krrdistill {
namespace {

constexpr int64_t lanczos_steps = 64;

// B and k right-hand sides in LAPACK's integers, checked before threads start: an exception must not leave them.
struct ShiftedBand {
  const double* band;
  int p, width, ld, k;
};

// factor <- Cholesky factor of B + shift I; false when it is not positive definite.
bool factor_shifted(const ShiftedBand& b, double shift, double* factor) {
  const int64_t p = b.p, ld = b.ld;
  std::copy(b.band, b.band + p * ld, factor);
  for (int64_t i = 0; i < p; ++i) {
    factor[i * ld] += shift;
  }
  char uplo = 'L';
  int n = b.p, width = b.width, ldab = b.ld, info = 0;
  blas<double>().pbtrf(&uplo, &n, &width, factor, &ldab, &info);
  return info == 0;
}

void solve_factored(const ShiftedBand& b, double* factor, double* columns) {
  char uplo = 'L';
  int n = b.p, width = b.width, ldab = b.ld, k = b.k, info = 0;
  blas<double>().pbtrs(&uplo, &n, &width, &k, factor, &ldab, columns, &n, &info);
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

double norm(const double* x, int64_t n) {
  double square = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    square += x[i] * x[i];
  }
  return std::sqrt(square);
}

// The largest eigenvalue of B, by Lanczos iterations from a fixed vector; workspace: 3 p + 2 lanczos_steps.
double largest_eigenvalue(const BandReduction& r, double* workspace) {
  const int64_t p = r.p;
  double* previous = workspace;
  double* current = previous + p;
  double* next = current + p;
  double* diagonal = next + p;
  double* off_diagonal = diagonal + lanczos_steps;
  std::fill(previous, previous + p, 0.0);
  for (int64_t i = 0; i < p; ++i) {
    current[i] = std::cos(static_cast<double>(i + 1));
  }
  const double length = norm(current, p);
  std::for_each(current, current + p, [length](double& value) { value /= length; });
  int steps = 0;
  double beta = 0.0, scale = 0.0;
  while (steps < std::min(p, lanczos_steps)) {
    multiply(r, current, next);
    double alpha = 0.0;
    for (int64_t i = 0; i < p; ++i) {
      alpha += current[i] * next[i];
    }
    for (int64_t i = 0; i < p; ++i) {
      next[i] -= alpha * current[i] + beta * previous[i];
    }
    diagonal[steps] = alpha;
    beta = norm(next, p);
    off_diagonal[steps++] = beta;
    scale = std::max(scale, std::abs(alpha) + beta);
    if (beta <= std::numeric_limits<double>::epsilon() * scale) {
      break;  // the vectors so far span an invariant subspace
    }
    std::for_each(next, next + p, [beta](double& value) { value /= beta; });
    std::swap(previous, current);
    std::swap(current, next);
  }
  int info = 0;
  blas<double>().sterf(&steps, diagonal, off_diagonal, &info);
  check_info("sterf", info);
  return diagonal[steps - 1];
}

}  // namespace

int64_t ridge_path_workspace(int64_t p, int64_t k, int64_t lambdas) {
  const int64_t width = band_width(p);
  const int64_t scratch =
      std::max({reduce_to_band_workspace(p), apply_q_workspace(p, k * std::max<int64_t>(lambdas, 1)),
                max_threads() * p * (width + 1), 3 * p + 2 * lanczos_steps});
  return p * width + p * (width + 1) + k * p + scratch;
}

double ridge_path(double* gram, const double* cross, int64_t p, int64_t k, const double* lambda, int64_t lambdas,
                  double rounding, double* weights, unsigned char* positive_definite, unsigned char* resolved,
                  double* workspace) {
  const int64_t width = band_width(p);
  double* factors = workspace;
  double* band = factors + p * width;
  double* rotated = band + p * (width + 1);
  double* scratch = rotated + k * p;
  const BandReduction r{.p = p, .width = width, .vectors = gram, .factors = factors, .band = band};
  reduce_to_band(r, scratch);
  const double largest = largest_eigenvalue(r, scratch);
  const double floor = rounding * std::max(largest, 0.0);

  // Row-major (k, p) is column-major (p, k): the targets are the columns.
  std::copy(cross, cross + k * p, rotated);
  apply_q(r, true, rotated, k, scratch);
  const ShiftedBand shifted{.band = band,
                            .p = blas_int(p),
                            .width = blas_int(std::min(width, p - 1)),
                            .ld = blas_int(width + 1),
                            .k = blas_int(k)};
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t l = 0; l < lambdas; ++l) {
    double* factor = scratch + thread_number() * p * (width + 1);
    double* solution = weights + l * k * p;
    std::copy(rotated, rotated + k * p, solution);
    resolved[l] = factor_shifted(shifted, lambda[l] - floor, factor) ? 1 : 0;
    positive_definite[l] = factor_shifted(shifted, lambda[l], factor) ? 1 : 0;
    if (positive_definite[l] != 0) {
      solve_factored(shifted, factor, solution);
    }
  }
  apply_q(r, false, weights, k * lambdas, scratch);
  for (int64_t l = 0; l < lambdas; ++l) {
    if (positive_definite[l] == 0) {
      std::fill(weights + l * k * p, weights + (l + 1) * k * p, std::numeric_limits<double>::quiet_NaN());
    }
  }
  return largest;
}

}  // namespace krrdistill
