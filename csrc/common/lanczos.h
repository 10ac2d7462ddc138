// The largest eigenvalue of a symmetric matrix that is only multiplied with, wherever that happens.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/checked_size.h"

namespace krrdistill {

constexpr int64_t lanczos_steps = 64;
constexpr double lanczos_change = 1e-6;  // relative change of the estimate in one step that ends the iterations

inline int64_t lanczos_workspace(int64_t p) { return checked_sum(checked_product(3, p), 2 * lanczos_steps); }

inline double euclidean_norm(const double* x, int64_t n) {
  double square = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    square += x[i] * x[i];
  }
  return std::sqrt(square);
}

// The largest eigenvalue, to 1e-12 of the largest magnitude, of the tridiagonal T (n, n) by bisection: it lies below x
// exactly when all pivots of T - x I are negative (Sylvester's law of inertia). `least`: it is not below that.
inline double largest_of_tridiagonal(const double* diagonal, const double* off_diagonal, int64_t n, double least) {
  double low = least, high = least;
  for (int64_t i = 0; i < n; ++i) {
    const double radius = (i > 0 ? std::abs(off_diagonal[i - 1]) : 0.0) + (i + 1 < n ? std::abs(off_diagonal[i]) : 0.0);
    low = std::max(low, diagonal[i]);  // Rayleigh quotients of unit vectors
    high = std::max(high, diagonal[i] + radius);
  }
  for (int step = 0; step < 60 && high - low > 1e-12 * std::max(std::abs(low), std::abs(high)); ++step) {
    const double x = 0.5 * (low + high);
    double pivot = -1.0;
    for (int64_t i = 0; i < n && pivot < 0.0; ++i) {
      pivot = diagonal[i] - x - (i > 0 ? off_diagonal[i - 1] * off_diagonal[i - 1] / pivot : 0.0);
    }
    (pivot < 0.0 ? high : low) = x;
  }
  return 0.5 * (low + high);
}

// multiply(x, y) writes y = A x. Starts from a fixed vector, so that equal matrices have equal results.
template <typename Multiply>
double largest_eigenvalue(int64_t p, Multiply multiply, double* workspace) {
  double* previous = workspace;
  double* current = previous + p;
  double* next = current + p;
  double* diagonal = next + p;
  double* off_diagonal = diagonal + lanczos_steps;
  std::fill(previous, previous + p, 0.0);
  for (int64_t i = 0; i < p; ++i) {
    current[i] = std::cos(static_cast<double>(i + 1));
  }
  const double length = euclidean_norm(current, p);
  std::for_each(current, current + p, [length](double& value) { value /= length; });
  double beta = 0.0, scale = 0.0, estimate = -std::numeric_limits<double>::max();
  for (int64_t step = 0; step < std::min(p, lanczos_steps); ++step) {
    multiply(current, next);
    double alpha = 0.0;
    for (int64_t i = 0; i < p; ++i) {
      alpha += current[i] * next[i];
    }
    for (int64_t i = 0; i < p; ++i) {
      next[i] -= alpha * current[i] + beta * previous[i];
    }
    diagonal[step] = alpha;
    beta = euclidean_norm(next, p);
    off_diagonal[step] = beta;
    const double before = estimate;  // the largest eigenvalue of a leading minor is not above that of the whole
    estimate = largest_of_tridiagonal(diagonal, off_diagonal, step + 1, step == 0 ? alpha : before);
    scale = std::max(scale, std::abs(alpha) + beta);
    // A beta of rounding: the vectors so far span an invariant subspace.
    if (beta <= std::numeric_limits<double>::epsilon() * scale ||
        std::abs(estimate - before) <= lanczos_change * std::abs(estimate)) {
      break;
    }
    std::for_each(next, next + p, [beta](double& value) { value /= beta; });
    std::swap(previous, current);
    std::swap(current, next);
  }
  return estimate;
}

}  // namespace krrdistill
