// Batched Cholesky solves. Small systems: one block factors and solves one in shared memory. Larger ones: cuSOLVER's
// batched factorisation and cuBLAS's batched triangular solves, as many at a time as memory allows.
#include "cuda/solve.h"

#include <algorithm>
#include <string>

#include "cuda/shared.h"
#include "krrdistill/errors.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 128;
constexpr int columns = 16;       // right-hand sides in shared memory at a time
constexpr int64_t small_n = 128;  // 66 KiB of factor and 16 KiB of columns: two blocks per multiprocessor

// Where element (i, j), j <= i, of the packed lower triangle is.
__device__ inline int packed(int i, int j) { return i * (i + 1) / 2 + j; }

// The factor replaces the packed triangle a. Returns 0, or the order of the leading minor that is not positive
// definite.
__device__ int factor(double* a, int n) {
  const int tid = static_cast<int>(threadIdx.x);
  for (int j = 0; j < n; ++j) {
    const double pivot = a[packed(j, j)];
    if (!(pivot > 0.0)) {
      return j + 1;  // all threads read the same number
    }
    const double root = sqrt(pivot);
    __syncthreads();
    for (int i = j + tid; i < n; i += threads) {
      a[packed(i, j)] = i == j ? root : a[packed(i, j)] / root;
    }
    __syncthreads();
    // Thread t updates row j + 1 + t / 8, columns t % 8, t % 8 + 8, ...
    for (int i = j + 1 + tid / 8; i < n; i += threads / 8) {
      for (int c = j + 1 + tid % 8; c <= i; c += 8) {
        a[packed(i, c)] -= a[packed(i, j)] * a[packed(c, j)];
      }
    }
    __syncthreads();
  }
  return 0;
}

// x (n, columns) = L^-T L^-1 x.
__device__ void substitute(const double* l, double* x, int n) {
  const int column = static_cast<int>(threadIdx.x) % columns, first = static_cast<int>(threadIdx.x) / columns;
  constexpr int step = threads / columns;
  for (int j = 0; j < n; ++j) {
    if (first == 0) {
      x[j * columns + column] /= l[packed(j, j)];
    }
    __syncthreads();
    for (int i = j + 1 + first; i < n; i += step) {  // the thread that has row j + 1 divides it next
      x[i * columns + column] -= l[packed(i, j)] * x[j * columns + column];
    }
  }
  for (int j = n - 1; j >= 0; --j) {
    if (first == 0) {
      x[j * columns + column] /= l[packed(j, j)];
    }
    __syncthreads();
    for (int i = first; i < j; i += step) {
      x[i * columns + column] -= l[packed(j, i)] * x[j * columns + column];
    }
    __syncthreads();
  }
}

__global__ void __launch_bounds__(threads) small_kernel(Systems systems, int* info) {
  const int n = static_cast<int>(systems.n), tid = static_cast<int>(threadIdx.x);
  const int64_t b = blockIdx.x;
  auto* a = shared_memory<double>();
  double* x = a + packed(n, 0);
  const double* matrix = systems.matrix + b * systems.stride;
  const double shift = systems.shift == nullptr ? 0.0 : systems.shift[b];
  for (int64_t index = tid; index < static_cast<int64_t>(n) * n; index += threads) {
    const int i = static_cast<int>(index / n), j = static_cast<int>(index % n);
    if (j <= i) {
      a[packed(i, j)] = matrix[index] + (i == j ? shift : 0.0);
    }
  }
  __syncthreads();
  const int failed = factor(a, n);
  if (tid == 0) {
    info[b] = failed;
  }
  if (failed != 0) {
    return;
  }
  double* rhs = systems.rhs + b * systems.r * n;
  for (int64_t start = 0; start < systems.r; start += columns) {
    for (int index = tid; index < n * columns; index += threads) {
      const int64_t c = start + index / n;
      x[index % n * columns + index / n] = c < systems.r ? rhs[c * n + index % n] : 0.0;
    }
    __syncthreads();
    substitute(a, x, n);
    for (int index = tid; index < n * columns; index += threads) {
      const int64_t c = start + index / n;
      if (c < systems.r) {
        rhs[c * n + index % n] = x[index % n * columns + index / n];
      }
    }  // each thread fills next what it has just read
  }
}

// out_b = A_b + shift_b I for systems [first, first + gridDim.y)
__global__ void __launch_bounds__(threads) shift_kernel(Systems systems, int64_t first, double* out) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, n = systems.n;
  const int64_t b = first + blockIdx.y;
  if (index < n * n) {
    const double shift = systems.shift == nullptr || index % (n + 1) != 0 ? 0.0 : systems.shift[b];
    out[blockIdx.y * n * n + index] = systems.matrix[b * systems.stride + index] + shift;
  }
}

void solve_small(Scope& scope, const Systems& systems, int* info) {
  const int64_t n = systems.n;
  const int64_t shared = (n * (n + 1) / 2 + n * columns) * static_cast<int64_t>(sizeof(double));
  launch("small_cholesky", &small_kernel, grid_of(systems.batch), threads, shared, scope.context.compute, systems,
         info);
}

// Row-major right-hand sides are column-major columns, and the lower triangle of a symmetric matrix is either.
void solve_large(Scope& scope, const Systems& systems, int* info) {
  const int64_t n = systems.n, square = n * n;
  const auto pointer_bytes = static_cast<int64_t>(sizeof(double*));
  const int64_t system_bytes = square * static_cast<int64_t>(sizeof(double)) + pointer_bytes;
  const int64_t room =
      scope.fit_rows("a Cholesky factorisation", systems.batch * pointer_bytes, system_bytes, systems.batch);
  const int64_t together = std::min<int64_t>(room, 65535);
  auto* factors = scope.device<double>(together * square);
  std::vector<double*> pointers(static_cast<size_t>(together + systems.batch));
  for (int64_t b = 0; b < together; ++b) {
    pointers[static_cast<size_t>(b)] = factors + b * square;
  }
  for (int64_t b = 0; b < systems.batch; ++b) {
    pointers[static_cast<size_t>(together + b)] = systems.rhs + b * systems.r * n;
  }
  double** factor_of = scope.upload(pointers.data(), together + systems.batch);
  double** rhs_of = factor_of + together;
  for (int64_t first = 0; first < systems.batch; first += together) {
    const int64_t count = std::min(together, systems.batch - first);
    launch("shift", &shift_kernel, grid_of(ceil_div(square, threads), count), threads, 0, scope.context.compute,
           systems, first, factors);
    KRRDISTILL_CHECK(cusolverDnDpotrfBatched(scope.context.solver, CUBLAS_FILL_MODE_LOWER, narrow(n), factor_of,
                                             narrow(n), info + first, narrow(count)));
    if (systems.r == 0) {
      continue;
    }
    const double one = 1.0;
    for (const cublasOperation_t side : {CUBLAS_OP_N, CUBLAS_OP_T}) {
      KRRDISTILL_CHECK(cublasDtrsmBatched(scope.context.blas, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, side,
                                          CUBLAS_DIAG_NON_UNIT, narrow(n), narrow(systems.r), &one, factor_of,
                                          narrow(n), rhs_of + first, narrow(n), narrow(count)));
    }
  }
}

}  // namespace

std::vector<int> cholesky_solve(Scope& scope, const Systems& systems) {
  std::vector<int> info(static_cast<size_t>(systems.batch));
  const Scope::Mark before = scope.mark();
  auto* device_info = scope.device<int>(systems.batch);
  if (systems.n <= small_n) {
    solve_small(scope, systems, device_info);
  } else {
    solve_large(scope, systems, device_info);
  }
  scope.download(info.data(), device_info, systems.batch);
  scope.release_to(before);
  for (const int value : info) {
    if (value < 0) {
      throw DeviceError("CUDA: potrfBatched: argument " + std::to_string(-value) + " is invalid");
    }
  }
  return info;
}

void solve_spd(Context& context, const double* a, double* rhs, int64_t batch, int64_t n, int64_t r) {
  if (batch == 0 || n == 0) {
    return;
  }
  Scope scope(context);
  auto* right = scope.upload(rhs, batch * r * n);
  const Systems systems{.matrix = scope.upload(a, batch * n * n),
                        .stride = n * n,
                        .shift = nullptr,
                        .rhs = right,
                        .batch = batch,
                        .n = n,
                        .r = r};
  for (const int value : cholesky_solve(scope, systems)) {
    if (value > 0) {
      throw NotPositiveDefinite(value);
    }
  }
  scope.download(rhs, right, batch * r * n);
}

}  // namespace krrdistill::cuda
