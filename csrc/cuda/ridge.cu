// One batch of Cholesky factorisations serves every lambda, and one that is shifted the most: where that is positive
// definite, rounding hides no lambda. Else bounds on the smallest eigenvalue that the batch leaves behind tell of most,
// and the others need a factorisation of their own.
#include "krrdistill/ridge.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "common/lanczos.h"
#include "cuda/solve.h"
// After the headers that launch: what it declares has the name of one of their parameters.
#include "cuda/shared.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 256;

// Of gram, which is on the device: the vectors of the iteration are the host's, p numbers go there and back in a step.
double largest_eigenvalue_of(Scope& scope, const double* gram, int64_t p) {
  const int n = narrow(p);
  const Scope::Mark before = scope.mark();
  auto* x = scope.device<double>(p);
  auto* y = scope.device<double>(p);
  const auto bytes = static_cast<size_t>(p) * sizeof(double);
  const auto multiply = [&](const double* from, double* to) {
    const double one = 1.0, zero = 0.0;
    KRRDISTILL_CHECK(cudaMemcpyAsync(x, from, bytes, cudaMemcpyHostToDevice, scope.context.compute));
    KRRDISTILL_CHECK(cublasDgemv(scope.context.blas, CUBLAS_OP_N, n, n, &one, gram, n, x, 1, &zero, y, 1));
    scope.download(to, y, p);
  };
  const double largest = largest_eigenvalue(p, multiply, scope.pinned<double>(lanczos_workspace(p)));
  scope.release_to(before);
  return largest;
}

// facts[2 l] = ||W_l||^2 and facts[2 l + 1] = <W_l, C>, one block per lambda, in an order that is always the same.
__global__ void __launch_bounds__(threads)
    facts_kernel(const double* weights, const double* cross, int64_t elements, double* facts) {
  const int tid = static_cast<int>(threadIdx.x);
  double* sums = shared_memory<double>();
  const double* W = weights + blockIdx.x * elements;
  double square = 0.0, product = 0.0;
  for (int64_t i = tid; i < elements; i += threads) {
    square += W[i] * W[i];
    product += W[i] * cross[i];
  }
  sums[tid] = square;
  sums[threads + tid] = product;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (tid < half) {
      sums[tid] += sums[tid + half];
      sums[threads + tid] += sums[threads + tid + half];
    }
  }
  if (tid == 0) {
    facts[2 * blockIdx.x] = sums[0];
    facts[2 * blockIdx.x + 1] = sums[threads];
  }
}

// The smallest eigenvalue of G is > `above` and <= `most`.
struct Bounds {
  double above = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();

  // What the factorisation of G + shift I says: an eigenvalue is at most every pivot, and > 0 if all of them are. Small
  // shifts say more, and lose less to cancellation.
  void add(double shift, const Pivots& pivots) {
    if (pivots.failed != 0) {
      most = std::min(most, -shift);
    } else if (-shift > above) {
      above = -shift;
      least_definite = pivots.least - shift;
    }
  }
  [[nodiscard]] bool definite(double shift) const { return shift >= -above; }
  [[nodiscard]] bool settled(double shift) const { return definite(shift) || shift <= -std::min(most, least_definite); }

 private:
  double least_definite = std::numeric_limits<double>::infinity();
};

}  // namespace

Models ridge_path(Context& context, const SymmetricMatrix& gram, const double* cross, int64_t k, const double* lambda,
                  int64_t lambdas, double rounding, const PathFacts& facts) {
  const int64_t p = gram.p, elements = k * p;
  // Before the scope, whose end waits for copies from them, also where an error unwinds.
  std::vector<double> shifts(lambda, lambda + lambdas), sums(static_cast<size_t>(2 * lambdas));
  std::vector<int64_t> open;
  Scope scope(context);
  auto* weights = scope.device<double>((lambdas + 1) * elements);  // the last: of the shift that has no model
  const double* device_gram = gram.on_device ? gram.data : scope.upload(gram.data, p * p);
  const double* device_cross = scope.upload(cross, elements);
  const double largest = largest_eigenvalue_of(scope, device_gram, p);
  *facts.largest_eigenvalue = std::isfinite(largest) ? largest : std::numeric_limits<double>::quiet_NaN();
  const auto solve = [&](double* solutions, int64_t targets) {
    return cholesky_solve(scope, {.matrix = device_gram,
                                  .stride = 0,
                                  .shift = scope.upload(shifts.data(), static_cast<int64_t>(shifts.size())),
                                  .rhs = device_cross,
                                  .rhs_stride = 0,
                                  .solutions = solutions,
                                  .batch = static_cast<int64_t>(shifts.size()),
                                  .n = p,
                                  .r = targets});
  };
  std::fill(facts.positive_definite, facts.positive_definite + lambdas, 0);
  std::fill(facts.resolved, facts.resolved + lambdas, 0);
  if (std::isfinite(largest) && lambdas > 0) {  // NaN or infinity in G shows in its product with any vector
    Bounds bounds;
    const double floor = rounding * std::max(largest, 0.0);
    if (floor > 0.0) {
      shifts.push_back(*std::min_element(lambda, lambda + lambdas) - floor);
    }
    const std::vector<Pivots> pivots = solve(weights, k);
    for (size_t i = 0; i < shifts.size(); ++i) {
      bounds.add(shifts[i], pivots[i]);
    }
    for (int64_t l = 0; l < lambdas; ++l) {
      facts.positive_definite[l] = pivots[static_cast<size_t>(l)].failed == 0 ? 1 : 0;
    }
    shifts.clear();
    for (int64_t l = 0; l < lambdas; ++l) {
      facts.resolved[l] = bounds.definite(lambda[l] - floor) ? 1 : 0;
      if (!bounds.settled(lambda[l] - floor)) {
        open.push_back(l);
        shifts.push_back(lambda[l] - floor);
      }
    }
    const std::vector<Pivots> lowered = open.empty() ? std::vector<Pivots>() : solve(nullptr, 0);
    for (size_t i = 0; i < open.size(); ++i) {
      facts.resolved[open[i]] = lowered[i].failed == 0 ? 1 : 0;
    }
  }
  for (int64_t l = 0; l < lambdas; ++l) {
    if (facts.positive_definite[l] == 0) {  // bytes of all ones are a NaN
      KRRDISTILL_CHECK(cudaMemsetAsync(weights + l * elements, 0xFF, static_cast<size_t>(elements) * sizeof(double),
                                       context.compute));
    }
  }
  auto* device_sums = scope.device<double>(2 * lambdas);
  if (lambdas > 0) {
    launch("path_facts", &facts_kernel, grid_of(lambdas), threads, 2 * threads * static_cast<int64_t>(sizeof(double)),
           context.compute, weights, device_cross, elements, device_sums);
  }
  scope.download(sums.data(), device_sums, 2 * lambdas);
  for (int64_t l = 0; l < lambdas; ++l) {
    facts.squares[l] = sums[static_cast<size_t>(2 * l)];
    facts.products[l] = sums[static_cast<size_t>(2 * l + 1)];
  }
  return {.weights = scope.keep(weights), .count = lambdas, .k = k, .p = p};
}

void download_rows(Context& context, const Models& models, const int64_t* rows, int64_t count, double* out) {
  Scope scope(context);
  for (int64_t i = 0, run = 0; i < count; i += run) {
    for (run = 1; i + run < count && rows[i + run] == rows[i] + run; ++run) {
    }
    scope.download(out + i * models.p, models.weights.get() + rows[i] * models.p, run * models.p);
  }
}

void multiply_models(Context& context, const Models& models, const double* vector, double* out) {
  const int64_t rows = models.count * models.k;
  if (rows == 0) {
    return;
  }
  Scope scope(context);
  auto* x = scope.upload(vector, models.p);
  auto* y = scope.device<double>(rows);
  const double one = 1.0, zero = 0.0;
  KRRDISTILL_CHECK(cublasDgemv(context.blas, CUBLAS_OP_T, narrow(models.p), narrow(rows), &one, models.weights.get(),
                               narrow(models.p), x, 1, &zero, y, 1));
  scope.download(out, y, rows);
}

}  // namespace krrdistill::cuda
