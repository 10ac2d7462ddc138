// The largest eigenvalue of a symmetric matrix that is only multiplied with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "common/checked_blas.h"

namespace krrdistill {

constexpr int64_t lanczos_steps = 64;
constexpr double lanczos_change = 1e-6;  // relative change of the estimate in one step that ends the iterations

inline int64_t lanczos_workspace(int64_t p) { return 3 * p + 4 * lanczos_steps; }

inline double euclidean_norm(const double* x, int64_t n) {
  double square = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    square += x[i] * x[i];
  }
  return std::sqrt(square);
}

// multiply(x, y) writes y = A x. Starts from a fixed vector, so that equal matrices have equal results.
template <typename Multiply>
double largest_eigenvalue(int64_t p, Multiply multiply, double* workspace) {
  double* previous = workspace;
  double* current = previous + p;
  double* next = current + p;
  double* diagonal = next + p;
  double* off_diagonal = diagonal + lanczos_steps;
  double* values = off_diagonal + lanczos_steps;
  double* spent = values + lanczos_steps;
  std::fill(previous, previous + p, 0.0);
  for (int64_t i = 0; i < p; ++i) {
    current[i] = std::cos(static_cast<double>(i + 1));
  }
  const double length = euclidean_norm(current, p);
  std::for_each(current, current + p, [length](double& value) { value /= length; });
  double beta = 0.0, scale = 0.0, estimate = 0.0;
  for (int steps = 0; steps < std::min(p, lanczos_steps);) {
    multiply(current, next);
    double alpha = 0.0;
    for (int64_t i = 0; i < p; ++i) {
      alpha += current[i] * next[i];
    }
    for (int64_t i = 0; i < p; ++i) {
      next[i] -= alpha * current[i] + beta * previous[i];
    }
    diagonal[steps] = alpha;
    beta = euclidean_norm(next, p);
    off_diagonal[steps++] = beta;
    std::copy(diagonal, diagonal + steps, values);
    std::copy(off_diagonal, off_diagonal + steps, spent);
    int info = 0;
    blas<double>().sterf(&steps, values, spent, &info);
    check_info("sterf", info);
    const double change = std::abs(values[steps - 1] - estimate);
    estimate = values[steps - 1];
    scale = std::max(scale, std::abs(alpha) + beta);
    // A beta of rounding: the vectors so far span an invariant subspace.
    if (beta <= std::numeric_limits<double>::epsilon() * scale || change <= lanczos_change * std::abs(estimate)) {
      break;
    }
    std::for_each(next, next + p, [beta](double& value) { value /= beta; });
    std::swap(previous, current);
    std::swap(current, next);
  }
  return estimate;
}

}  // namespace krrdistill
