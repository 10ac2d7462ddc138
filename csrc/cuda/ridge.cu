// One batch of Cholesky factorisations serves every lambda, a second one tells which of them rounding hides.
#include "krrdistill/ridge.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "common/lanczos.h"
#include "cuda/solve.h"

namespace krrdistill::cuda {
namespace {

// Of gram, which is on the device: the vectors of the iteration are the host's, p numbers go there and back in a step.
double largest_eigenvalue_of(Scope& scope, const double* gram, int64_t p, double* workspace) {
  const int n = narrow(p);
  auto* x = scope.device<double>(p);
  auto* y = scope.device<double>(p);
  const auto multiply = [&](const double* from, double* to) {
    const double one = 1.0, zero = 0.0;
    KRRDISTILL_CHECK(cudaMemcpyAsync(x, from, static_cast<size_t>(p) * sizeof(double), cudaMemcpyHostToDevice,
                                     scope.context.compute));
    KRRDISTILL_CHECK(cublasDgemv(scope.context.blas, CUBLAS_OP_N, n, n, &one, gram, n, x, 1, &zero, y, 1));
    scope.download(to, y, p);
  };
  return largest_eigenvalue(p, multiply, workspace);
}

}  // namespace

double ridge_path(Context& context, const Gram& gram, const double* cross, int64_t p, int64_t k, const double* lambda,
                  int64_t lambdas, double rounding, double* weights, unsigned char* positive_definite,
                  unsigned char* resolved) {
  // Before the scope, whose end waits for copies from them, also where an error unwinds.
  std::vector<double> workspace(static_cast<size_t>(lanczos_workspace(p)));
  std::vector<double> shift(lambda, lambda + lambdas);
  Scope scope(context);
  const double* device_gram = gram.resident == nullptr ? scope.upload(gram.host, p * p) : gram.resident->symmetric();
  const double largest = largest_eigenvalue_of(scope, device_gram, p, workspace.data());
  if (lambdas == 0) {
    return largest;
  }
  const auto solve = [&](double* rhs, int64_t columns) {
    return cholesky_solve(scope, {.matrix = device_gram,
                                  .stride = 0,
                                  .shift = scope.upload(shift.data(), lambdas),
                                  .rhs = rhs,
                                  .batch = lambdas,
                                  .n = p,
                                  .r = columns});
  };
  auto* solutions = scope.device<double>(lambdas * k * p);
  for (int64_t l = 0; l < lambdas; ++l) {
    // Row-major (k, p) is column-major (p, k): the targets are the columns.
    KRRDISTILL_CHECK(cudaMemcpyAsync(solutions + l * k * p, cross, static_cast<size_t>(k * p) * sizeof(double),
                                     cudaMemcpyHostToDevice, context.compute));
  }
  const std::vector<int> failed = solve(solutions, k);
  const double floor = rounding * std::max(largest, 0.0);
  std::for_each(shift.begin(), shift.end(), [floor](double& value) { value -= floor; });
  const std::vector<int> hidden = solve(nullptr, 0);
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
