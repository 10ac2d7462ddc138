// W^T = Q R, so W x = r is R^T y = r, x = Q [y; 0]: the solution in the row space, of least norm.
#include "krrdistill/preimage.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cuda/elementwise.h"
#include "cuda/runtime.h"
#include "krrdistill/errors.h"

namespace krrdistill::cuda {
namespace {

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

// The smallest over the largest magnitude on the diagonal of a column-major (d, p) factor.
double diagonal_ratio(Scope& scope, const double* factor, int64_t p, int64_t d) {
  std::vector<double> diagonal(static_cast<size_t>(p));
  scope.download_strided(diagonal.data(), factor, p, d + 1);
  const auto [smallest, largest] = std::minmax_element(diagonal.begin(), diagonal.end(),
                                                       [](double a, double b) { return std::abs(a) < std::abs(b); });
  return *largest == 0.0 ? 0.0 : std::abs(*smallest / *largest);
}

void require_success(Scope& scope, const char* routine, const int* device_info) {
  int info = 0;
  scope.download(&info, device_info, 1);
  if (info != 0) {
    throw DeviceError(std::string("CUDA: ") + routine + " failed with info " + std::to_string(info));
  }
}

}  // namespace

template <typename T>
double preimage_solve(Context& context, const T* weight, const double* rhs, double* x, int64_t p, int64_t d, int64_t m,
                      double rcond_floor) {
  Scope scope(context);
  cusolverDnHandle_t solver = context.solver;
  const int ip = narrow(p), id = narrow(d), im = narrow(m);
  double* factor = upload_wide(scope, weight, p, d);  // row-major (p, d) is column-major W^T (d, p)
  auto* tau = scope.device<double>(p);
  auto* left = scope.device<double>(m * d);
  auto* info = scope.device<int>(1);
  int factor_work = 0, apply_work = 0;
  KRRDISTILL_CHECK(cusolverDnDgeqrf_bufferSize(solver, id, ip, factor, id, &factor_work));
  if (m > 0) {
    KRRDISTILL_CHECK(cusolverDnDormqr_bufferSize(solver, CUBLAS_SIDE_LEFT, CUBLAS_OP_N, id, im, ip, factor, id, tau,
                                                 left, id, &apply_work));
  }
  const int work_size = std::max(factor_work, apply_work);
  auto* work = scope.device<double>(work_size);
  KRRDISTILL_CHECK(cusolverDnDgeqrf(solver, id, ip, factor, id, tau, work, work_size, info));
  require_success(scope, "geqrf", info);
  const double rcond = diagonal_ratio(scope, factor, p, d);
  if (!(rcond >= rcond_floor) || m == 0) {
    return rcond;
  }
  if (p < d) {
    KRRDISTILL_CHECK(cudaMemsetAsync(left, 0, static_cast<size_t>(m * d) * sizeof(double), context.compute));
  }
  scope.upload_rows_to(left, rhs, m, p, d);
  const double one = 1.0;
  KRRDISTILL_CHECK(cublasDtrsm(context.blas, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T,
                               CUBLAS_DIAG_NON_UNIT, ip, im, &one, factor, id, left, id));
  KRRDISTILL_CHECK(cusolverDnDormqr(solver, CUBLAS_SIDE_LEFT, CUBLAS_OP_N, id, im, ip, factor, id, tau, left, id, work,
                                    work_size, info));
  require_success(scope, "ormqr", info);
  scope.download(x, left, m * d);
  return rcond;
}

template double preimage_solve(Context&, const float*, const double*, double*, int64_t, int64_t, int64_t, double);
template double preimage_solve(Context&, const double*, const double*, double*, int64_t, int64_t, int64_t, double);

}  // namespace krrdistill::cuda
