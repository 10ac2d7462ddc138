// One batch of Cholesky factorisations serves every lambda, a second one tells which of them rounding hides.
#include "krrdistill/ridge.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cuda/solve.h"

namespace krrdistill::cuda {
namespace {

constexpr int64_t lanczos_steps = 64;

// The largest eigenvalue of a symmetric tridiagonal matrix, by bisection: it is below x exactly when all pivots of
// T - x I are negative (Sylvester's law of inertia).
double largest_of_tridiagonal(const std::vector<double>& diagonal, const std::vector<double>& off_diagonal) {
  const size_t n = diagonal.size();
  double low = diagonal[0], high = diagonal[0];
  for (size_t i = 0; i < n; ++i) {
    const double radius = (i > 0 ? std::abs(off_diagonal[i - 1]) : 0.0) + (i + 1 < n ? std::abs(off_diagonal[i]) : 0.0);
    low = std::max(low, diagonal[i]);  // Rayleigh quotients of unit vectors
    high = std::max(high, diagonal[i] + radius);
  }
  for (int step = 0; step < 60; ++step) {
    const double x = 0.5 * (low + high);
    double pivot = -1.0;
    for (size_t i = 0; i < n && pivot < 0.0; ++i) {
      pivot = diagonal[i] - x - (i > 0 ? off_diagonal[i - 1] * off_diagonal[i - 1] / pivot : 0.0);
    }
    (pivot < 0.0 ? high : low) = x;
  }
  return 0.5 * (low + high);
}

// The largest eigenvalue of gram, by Lanczos iterations from a fixed vector; the steps of csrc/cpu/ridge.cpp.
double largest_eigenvalue(Scope& scope, const double* gram, int64_t p) {
  cublasHandle_t blas = scope.context.blas;
  const int n = narrow(p);
  std::vector<double> start(static_cast<size_t>(p));
  double square = 0.0;
  for (int64_t i = 0; i < p; ++i) {
    start[static_cast<size_t>(i)] = std::cos(static_cast<double>(i + 1));
    square += start[static_cast<size_t>(i)] * start[static_cast<size_t>(i)];
  }
  std::for_each(start.begin(), start.end(), [square](double& value) { value /= std::sqrt(square); });
  double* current = scope.upload(start.data(), p);
  auto* previous = scope.device<double>(p);
  auto* next = scope.device<double>(p);
  KRRDISTILL_CHECK(cudaMemsetAsync(previous, 0, static_cast<size_t>(p) * sizeof(double), scope.context.compute));
  std::vector<double> diagonal, off_diagonal;
  double beta = 0.0, scale = 0.0;
  const double one = 1.0, zero = 0.0;
  for (int64_t step = 0; step < std::min(p, lanczos_steps); ++step) {
    KRRDISTILL_CHECK(cublasDgemv(blas, CUBLAS_OP_N, n, n, &one, gram, n, current, 1, &zero, next, 1));
    double alpha = 0.0;
    KRRDISTILL_CHECK(cublasDdot(blas, n, current, 1, next, 1, &alpha));
    const double minus_alpha = -alpha, minus_beta = -beta;
    KRRDISTILL_CHECK(cublasDaxpy(blas, n, &minus_alpha, current, 1, next, 1));
    KRRDISTILL_CHECK(cublasDaxpy(blas, n, &minus_beta, previous, 1, next, 1));
    KRRDISTILL_CHECK(cublasDnrm2(blas, n, next, 1, &beta));
    diagonal.push_back(alpha);
    off_diagonal.push_back(beta);
    scale = std::max(scale, std::abs(alpha) + beta);
    if (beta <= std::numeric_limits<double>::epsilon() * scale) {
      break;  // the vectors so far span an invariant subspace
    }
    const double inverse = 1.0 / beta;
    KRRDISTILL_CHECK(cublasDscal(blas, n, &inverse, next, 1));
    std::swap(previous, current);
    std::swap(current, next);
  }
  return largest_of_tridiagonal(diagonal, off_diagonal);
}

}  // namespace

double ridge_path(Context& context, const double* gram, const double* cross, int64_t p, int64_t k, const double* lambda,
                  int64_t lambdas, double rounding, double* weights, unsigned char* positive_definite,
                  unsigned char* resolved) {
  Scope scope(context);
  const double* device_gram = scope.upload(gram, p * p);
  const double largest = largest_eigenvalue(scope, device_gram, p);
  if (lambdas == 0) {
    return largest;
  }
  const auto solve = [&](const std::vector<double>& shift, double* rhs, int64_t columns) {
    return cholesky_solve(scope, {.matrix = device_gram,
                                  .stride = 0,
                                  .shift = scope.upload(shift.data(), lambdas),
                                  .rhs = rhs,
                                  .batch = lambdas,
                                  .n = p,
                                  .r = columns});
  };
  std::vector<double> shift(lambda, lambda + lambdas);
  auto* solutions = scope.device<double>(lambdas * k * p);
  for (int64_t l = 0; l < lambdas; ++l) {
    // Row-major (k, p) is column-major (p, k): the targets are the columns.
    KRRDISTILL_CHECK(cudaMemcpyAsync(solutions + l * k * p, cross, static_cast<size_t>(k * p) * sizeof(double),
                                     cudaMemcpyHostToDevice, context.compute));
  }
  const std::vector<int> failed = solve(shift, solutions, k);
  const double floor = rounding * std::max(largest, 0.0);
  std::for_each(shift.begin(), shift.end(), [floor](double& value) { value -= floor; });
  const std::vector<int> hidden = solve(shift, nullptr, 0);
  scope.download(weights, solutions, lambdas * k * p);
  for (int64_t l = 0; l < lambdas; ++l) {
    positive_definite[l] = failed[static_cast<size_t>(l)] == 0 ? 1 : 0;
    resolved[l] = hidden[static_cast<size_t>(l)] == 0 ? 1 : 0;
    if (positive_definite[l] == 0) {
      std::fill(weights + l * k * p, weights + (l + 1) * k * p, std::numeric_limits<double>::quiet_NaN());
    }
  }
  return largest;
}

}  // namespace krrdistill::cuda
