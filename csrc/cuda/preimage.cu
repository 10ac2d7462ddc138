// Least-norm solutions x = W^T a of W x = r: a = (W W^T)^-1 r by a Cholesky factorisation, corrected by a step of
// refinement with W itself. QR of W^T, whose panels take ten times as long, where W is too ill-conditioned for that.
#include "krrdistill/preimage.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "cuda/dense.h"
#include "cuda/elementwise.h"
#include "cuda/matrices.h"
#include "cuda/products.h"
#include "cuda/runtime.h"

namespace krrdistill::cuda {
namespace {

constexpr double least_rcond = 1e-5;  // of W, as its factor tells; its square is then far above the rounding of W W^T
// Of x by the step of refinement, which leaves the square of it: 1e-12, less than the condition of such a W costs.
constexpr double most_change = 1e-6;

double* upload_wide(Scope& scope, const double* weight, int64_t rows, int64_t width) {
  return scope.upload(weight, rows * width);
}

// Half the bytes go over the bus, or none where a copy is there.
double* upload_wide(Scope& scope, const float* weight, int64_t rows, int64_t width) {
  const int64_t n = rows * width;
  auto* out = scope.device<double>(n);
  const void* kept = scope.kept({.data = weight, .rows = rows, .width = width, .element = sizeof(float)});
  const auto* copy = pitch(width) == width ? static_cast<const float*>(kept) : nullptr;
  widen(scope.context.compute, copy != nullptr ? copy : scope.upload(weight, n), out, n);
  return out;
}

// The smallest over the largest magnitude on the diagonal of p columns, `ld` apart.
double diagonal_ratio(Scope& scope, const double* factor, int64_t p, int64_t ld) {
  std::vector<double> diagonal(static_cast<size_t>(p));
  scope.download_strided(diagonal.data(), factor, p, ld + 1);
  const auto [smallest, largest] = std::minmax_element(diagonal.begin(), diagonal.end(),
                                                       [](double a, double b) { return std::abs(a) < std::abs(b); });
  return *largest == 0.0 ? 0.0 : std::abs(*smallest / *largest);
}

// right (m, ld) = R^-op right, R the upper triangle of a column-major matrix (ld, p); of each row the first p numbers.
void solve_upper(Scope& scope, cublasOperation_t op, const double* upper, int64_t ld, int64_t p, double* right,
                 int64_t m) {
  const double one = 1.0;
  KRRDISTILL_CHECK(cublasDtrsm(scope.context.blas, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_UPPER, op, CUBLAS_DIAG_NON_UNIT,
                               narrow(p), narrow(m), &one, upper, narrow(ld), right, narrow(ld)));
}

// (p, d), row-major; cuBLAS and cuSOLVER see W^T (d, p), and rows of right sides and solutions as columns.
struct Weight {
  double* data;
  int64_t p;
  int64_t d;
};

// W W^T = R^T R, with the R of W^T = Q R.
class NormalEquations {
 public:
  NormalEquations(Scope& scope, const Weight& weight)
      : scope_(scope), weight_(weight), factor_(scope.device<double>(weight.p * weight.p)) {
    const int p = narrow(weight.p);
    syrk<double>(scope, p, weight.d, weight.data, weight.d, 0.0, factor_, p, CUBLAS_OP_T);
    const bool definite = cholesky_in_place(scope, CUBLAS_FILL_MODE_UPPER, p, factor_) == 0;
    rcond_ = definite ? diagonal_ratio(scope, factor_, p, p) : 0.0;
  }

  // Of W; 0 where W W^T is not positive definite.
  [[nodiscard]] double rcond() const { return rcond_; }

  // x (m, d) for right (m, p), with as much space as that: a step from x = 0, and one of refinement. False where that
  // does not help enough. ||R^-T e|| is the norm of what a step adds, W^T (W W^T)^-1 e.
  bool solve(const double* right, int64_t m, double* space, double* x) const {
    const auto bytes = static_cast<size_t>(m * weight_.p) * sizeof(double);
    const auto copy = [&] {
      KRRDISTILL_CHECK(cudaMemcpyAsync(space, right, bytes, cudaMemcpyDeviceToDevice, scope_.context.compute));
    };
    copy();
    const double size = step(space, m, 0.0, x);
    copy();
    multiply(CUBLAS_OP_T, x, m, -1.0, 1.0, space);
    return step(space, m, 1.0, x) <= most_change * size;
  }

 private:
  // x = beta x + W^T (W W^T)^-1 e; returns the norm of what is added. e is overwritten.
  double step(double* e, int64_t m, double beta, double* x) const {
    const int64_t p = weight_.p;
    double norm = 0.0;
    solve_upper(scope_, CUBLAS_OP_T, factor_, p, p, e, m);
    KRRDISTILL_CHECK(cublasDnrm2(scope_.context.blas, narrow(m * p), e, 1, &norm));
    solve_upper(scope_, CUBLAS_OP_N, factor_, p, p, e, m);
    multiply(CUBLAS_OP_N, e, m, 1.0, beta, x);
    return norm;
  }

  // out = alpha op(W^T) columns + beta out
  void multiply(cublasOperation_t op, const double* columns, int64_t m, double alpha, double beta, double* out) const {
    const bool transposed = op == CUBLAS_OP_T;
    const int rows = narrow(transposed ? weight_.p : weight_.d), depth = narrow(transposed ? weight_.d : weight_.p);
    KRRDISTILL_CHECK(cublasDgemm(scope_.context.blas, op, CUBLAS_OP_N, rows, narrow(m), depth, &alpha, weight_.data,
                                 narrow(weight_.d), columns, depth, &beta, out, rows));
  }

  Scope& scope_;
  Weight weight_;
  double* factor_;
  double rcond_ = 0.0;
};

// W^T = Q R in the place of the weight: W x = r is R^T y = r, x = Q [y; 0].
class OrthogonalFactors {
 public:
  OrthogonalFactors(Scope& scope, const Weight& weight)
      : scope_(scope), weight_(weight), tau_(scope.device<double>(weight.p)), info_(scope.device<int>(1)) {
    const int p = narrow(weight.p), d = narrow(weight.d);
    cusolverDnHandle_t solver = scope.context.solver;
    int length = 0;
    KRRDISTILL_CHECK(cusolverDnDgeqrf_bufferSize(solver, d, p, weight.data, d, &length));
    const Scope::Mark before = scope.mark();
    auto* work = scope.device<double>(length);
    KRRDISTILL_CHECK(cusolverDnDgeqrf(solver, d, p, weight.data, d, tau_, work, length, info_));
    info_of(scope, "geqrf", info_);
    rcond_ = diagonal_ratio(scope, weight.data, p, d);
    scope.release_to(before);
  }

  [[nodiscard]] double rcond() const { return rcond_; }

  // x (m, d) for right (m, p)
  void solve(const double* right, int64_t m, double* x) const {
    const int p = narrow(weight_.p), d = narrow(weight_.d), columns = narrow(m);
    const auto width = weight_.p * sizeof(double), stride = weight_.d * sizeof(double);
    cudaStream_t stream = scope_.context.compute;
    cusolverDnHandle_t solver = scope_.context.solver;
    if (p < d) {
      KRRDISTILL_CHECK(cudaMemsetAsync(x, 0, static_cast<size_t>(m) * stride, stream));
    }
    KRRDISTILL_CHECK(
        cudaMemcpy2DAsync(x, stride, right, width, width, static_cast<size_t>(m), cudaMemcpyDeviceToDevice, stream));
    solve_upper(scope_, CUBLAS_OP_T, weight_.data, d, p, x, m);
    int length = 0;
    KRRDISTILL_CHECK(cusolverDnDormqr_bufferSize(solver, CUBLAS_SIDE_LEFT, CUBLAS_OP_N, d, columns, p, weight_.data, d,
                                                 tau_, x, d, &length));
    const Scope::Mark before = scope_.mark();
    auto* work = scope_.device<double>(length);
    KRRDISTILL_CHECK(cusolverDnDormqr(solver, CUBLAS_SIDE_LEFT, CUBLAS_OP_N, d, columns, p, weight_.data, d, tau_, x, d,
                                      work, length, info_));
    info_of(scope_, "ormqr", info_);
    scope_.release_to(before);
  }

 private:
  Scope& scope_;
  Weight weight_;
  double* tau_;
  int* info_;
  double rcond_ = 0.0;
};

// x (m, d) for rhs (m, p), both of the host or both `on_device`; see preimage_solve.
template <typename T>
double solve_rows(Scope& scope, const T* weight, const double* rhs, double* x, bool on_device, int64_t p, int64_t d,
                  int64_t m, double rcond_floor) {
  const Weight dense{.data = upload_wide(scope, weight, p, d), .p = p, .d = d};
  const NormalEquations normal(scope, dense);
  double rcond = normal.rcond();
  std::optional<OrthogonalFactors> orthogonal;
  if (!(rcond >= least_rcond)) {
    rcond = orthogonal.emplace(scope, dense).rcond();
  }
  if (!(rcond >= rcond_floor) || m == 0) {
    return rcond;
  }
  // Three arrays, or one beside those on the device, and what cuSOLVER asks for; sizes of cuBLAS are 32 bits wide.
  const int64_t most = std::min<int64_t>(m, std::numeric_limits<int>::max() / d);
  const int64_t numbers = 2 * (on_device ? p : p + d);
  const int64_t rows = scope.fit_rows("preimage_solve", 0, numbers * static_cast<int64_t>(sizeof(double)), most);
  auto* right = on_device ? nullptr : scope.device<double>(rows * p);
  auto* left = on_device ? nullptr : scope.device<double>(rows * d);
  auto* space = scope.device<double>(rows * p);
  for (int64_t first = 0; first < m; first += rows) {
    const int64_t count = std::min(rows, m - first);
    const double* given = on_device ? rhs + first * p : right;
    double* solved = on_device ? x + first * d : left;
    if (!on_device) {
      scope.upload_rows_to(right, rhs + first * p, count, p, p);
    }
    if (!orthogonal && !normal.solve(given, count, space, solved)) {
      rcond = orthogonal.emplace(scope, dense).rcond();
    }
    if (orthogonal) {
      orthogonal->solve(given, count, solved);
    }
    if (!on_device) {
      scope.download(x + first * d, left, count * d);
    }
  }
  return rcond;
}

}  // namespace

template <typename T>
double preimage_solve(Context& context, const T* weight, const double* rhs, double* x, int64_t p, int64_t d, int64_t m,
                      double rcond_floor) {
  Scope scope(context);
  return solve_rows(scope, weight, rhs, x, false, p, d, m, rcond_floor);
}

template <typename T>
Preimages preimages_here(Context& context, const T* weight, const Operand& rhs, int64_t d, double rcond_floor) {
  Scope scope(context);
  auto* x = scope.device<double>(rhs.rows * d);
  const double rcond = solve_rows(scope, weight, rhs.data, x, true, rhs.columns, d, rhs.rows, rcond_floor);
  return {.x = scope.keep_here(x), .rcond = rcond};
}

template double preimage_solve(Context&, const float*, const double*, double*, int64_t, int64_t, int64_t, double);
template Preimages preimages_here(Context&, const float*, const Operand&, int64_t, double);
template Preimages preimages_here(Context&, const double*, const Operand&, int64_t, double);
template double preimage_solve(Context&, const double*, const double*, double*, int64_t, int64_t, int64_t, double);

}  // namespace krrdistill::cuda
