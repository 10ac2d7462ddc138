// Batched Cholesky solves. Small systems: one block factors and solves one in shared memory. Larger ones: by block
// columns, all of the work but that of the diagonal blocks in products, as many systems at a time as memory allows.
#include "cuda/solve.h"

#include <algorithm>
#include <cmath>

#include "cuda/shared.h"
#include "krrdistill/errors.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 128;
constexpr int columns = 16;       // right-hand sides in shared memory at a time
constexpr int64_t small_n = 128;  // 66 KiB of factor and 16 KiB of columns: two blocks per multiprocessor

// Where element (i, j), j <= i, of the packed lower triangle is.
__device__ inline int packed(int i, int j) { return i * (i + 1) / 2 + j; }

// The factor replaces the packed triangle a.
__device__ Pivots factor(double* a, int n) {
  const int tid = static_cast<int>(threadIdx.x);
  double least = INFINITY;
  for (int j = 0; j < n; ++j) {
    const double pivot = a[packed(j, j)];
    if (!(pivot > 0.0)) {
      return {least, j + 1};  // all threads read the same number
    }
    least = pivot < least ? pivot : least;
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
  return {least, 0};
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

__global__ void __launch_bounds__(threads) small_kernel(Systems systems, Pivots* pivots) {
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
  const Pivots found = factor(a, n);
  if (tid == 0) {
    pivots[b] = found;
  }
  if (found.failed != 0) {
    return;
  }
  const double* rhs = systems.rhs + b * systems.rhs_stride;
  double* solutions = systems.solutions + b * systems.r * n;
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
        solutions[c * n + index % n] = x[index % n * columns + index / n];
      }
    }  // each thread fills next what it has just read
  }
}

void solve_small(Scope& scope, const Systems& systems, Pivots* pivots) {
  const int64_t n = systems.n;
  const int64_t shared = (n * (n + 1) / 2 + n * columns) * static_cast<int64_t>(sizeof(double));
  launch("small_cholesky", &small_kernel, grid_of(systems.batch), threads, shared, scope.context.compute, systems,
         pivots);
}

// ---- by block columns

constexpr int width = 128;           // of a block column
constexpr int side = 16;             // a block of side x side threads factors a diagonal block, and each of them
constexpr int cells = width / side;  // has the elements (side a + y, side b + x), b <= a, in registers
constexpr int factor_threads = side * side;

// A matrix of each system, `stride` apart; rows are `ld` apart (what the products see are its columns).
struct Matrices {
  double* data;
  int64_t ld;
  int64_t stride;
};

// Block column [start, start + count) of [A + shift I; B], rows from `start` on, of systems first, first + 1, ...
struct BlockColumn {
  int64_t first;
  int64_t start;
  int64_t count;
  int64_t rows;
};

// column_b (rows, width)
__global__ void __launch_bounds__(threads) load_kernel(Systems systems, BlockColumn block, double* columns_of) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, n = systems.n;
  const int64_t row = index / width, c = index % width, b = block.first + blockIdx.y;
  if (row >= block.rows || c >= block.count) {
    return;
  }
  const int64_t i = block.start + row, j = block.start + c;
  double value = 0.0;
  if (i >= n) {
    value = systems.rhs[b * systems.rhs_stride + (i - n) * n + j];
  } else if (j <= i) {
    value = systems.matrix[b * systems.stride + i * n + j];
    value += i == j && systems.shift != nullptr ? systems.shift[b] : 0.0;
  }
  columns_of[(blockIdx.y * block.rows + row) * width + c] = value;
}

// L and L^-1 (count, count) of the diagonal block L L^T that the first rows of column_b hold. The inverse grows in
// place of what is factored: once step j is done, row i holds
//
//     i <= j: L^-1        i > j: columns <= j what forward substitution has made of the unit vectors, the others the
//                                Schur complement
//
// Step j needs one vector: row j of L^-1 before the diagonal, the pivot, column j of the complement below it.
__global__ void __launch_bounds__(factor_threads)
    factor_kernel(BlockColumn block, const double* columns_of, Matrices factors, Matrices inverses, Pivots* pivots) {
  double* vector = shared_memory<double>();  // two of them: the next is written while this one is still being read
  const int x = static_cast<int>(threadIdx.x) % side, y = static_cast<int>(threadIdx.x) / side;
  const int count = static_cast<int>(block.count);
  const double* column = columns_of + blockIdx.x * block.rows * width;
  double* factor = factors.data + blockIdx.x * factors.stride;
  double* inverse = inverses.data + blockIdx.x * inverses.stride;
  Pivots& found = pivots[block.first + blockIdx.x];
  double least = block.start == 0 ? INFINITY : found.least;
  int64_t failed = block.start == 0 ? 0 : found.failed;
  const bool failed_before = failed != 0;
  double cell[cells][cells];
#pragma unroll
  for (int a = 0; a < cells; ++a) {
#pragma unroll
    for (int b = 0; b <= a; ++b) {
      const int i = side * a + y, c = side * b + x;
      cell[a][b] = i < count && c <= i ? column[i * width + c] : 0.0;
    }
  }
#pragma unroll
  for (int middle = 0; middle < cells; ++middle) {
    for (int step = 0; step < side; ++step) {
      const int j = side * middle + step;
      if (j >= count || failed != 0) {
        break;
      }
      double* shared = vector + j % 2 * width;
#pragma unroll
      for (int other = 0; other < cells; ++other) {
        if (other <= middle && y == step && side * other + x < j) {
          shared[side * other + x] = cell[middle][other <= middle ? other : 0];
        }
        if (other >= middle && x == step && side * other + y >= j) {
          shared[side * other + y] = cell[other >= middle ? other : middle][middle];
        }
      }
      __syncthreads();
      const double pivot = shared[j];
      if (!(pivot > 0.0)) {
        failed = block.start + j + 1;  // all threads read the same number
        break;
      }
      least = pivot < least ? pivot : least;
      const double root = rsqrt(pivot);
      double across[cells];
#pragma unroll
      for (int b = 0; b < cells; ++b) {
        across[b] = side * b + x == j ? root : shared[side * b + x] * root;
      }
#pragma unroll
      for (int a = middle; a < cells; ++a) {
        const int i = side * a + y;
        const double down = shared[i] * root;
        if (x == step && i >= j && i < count) {
          factor[i * factors.ld + j] = down;
        }
#pragma unroll
        for (int b = 0; b <= a; ++b) {
          const double before = b == middle && x == step ? 0.0 : cell[a][b];
          if (i > j) {
            cell[a][b] = before - down * across[b];
          } else if (i == j) {
            cell[a][b] = across[b];
          }
        }
      }
    }
  }
#pragma unroll
  for (int a = 0; a < cells; ++a) {
#pragma unroll
    for (int b = 0; b < cells; ++b) {
      const int i = side * a + y, c = side * b + x;
      if (i < count && c < count) {
        inverse[i * inverses.ld + c] = c <= i ? cell[a][b <= a ? b : a] : 0.0;
        if (c > i || failed != 0) {
          factor[i * factors.ld + c] = 0.0;
        }
      }
    }
  }
  if (threadIdx.x == 0 && !failed_before) {  // else other threads may not have read it yet
    found = {least, failed};
  }
}

// C_b = alpha op(A_b) B_b + beta C_b, op(A_b) (m, k)
void multiply(Scope& scope, int64_t batch, cublasOperation_t op, int64_t m, int64_t n, int64_t k, double alpha,
              const Matrices& a, const Matrices& b, double beta, const Matrices& c) {
  if (m == 0 || n == 0 || k == 0) {
    return;
  }
  KRRDISTILL_CHECK(cublasDgemmStridedBatched(scope.context.blas, op, CUBLAS_OP_N, narrow(m), narrow(n), narrow(k),
                                             &alpha, a.data, narrow(a.ld), a.stride, b.data, narrow(b.ld), b.stride,
                                             &beta, c.data, narrow(c.ld), c.stride, narrow(batch)));
}

// What solve_together works on.
struct Workspace {
  double* factors;   // of each system (n + r, n): [L; Y]
  double* inverses;  // (n, width): those of the diagonal blocks of L, one below the other
  double* columns;   // (at most n + r, width)
};

// A_b = L L^T and B_b = Y L^T by block columns from left to right, then X L = Y from right to left; all row-major,
// which the products see as transposed. With J a block, J: all rows from there on, of Y too:
//
//     S = [A; B][J:, J] - [L; Y][J:, :J] L[J, :J]^T      most of the flops, n^3 / 3
//     L[J, J] L[J, J]^T = S[J]                           factor_kernel
//     [L; Y][J+1:, J] = S[J+1:] L[J, J]^-T
//     X[:, J] = Y[:, J] L[J, J]^-1, then Y[:, :J] -= X[:, J] L[J, :J]
//
// A product with the inverse alone has a backward error that grows with the condition of L[J, J] (400 points of a
// Gaussian kernel: 5e-11 where LAPACK has 1e-16). One step of refinement, T += (S - T L^T) L^-T, takes that away. All
// in all it is n^3 / 3 (1 + 9 width / n) flops for small r.
void solve_together(Scope& scope, const Systems& systems, int64_t first, int64_t batch, const Workspace& workspace,
                    Pivots* pivots) {
  const int64_t n = systems.n, r = systems.r, all = n + r;
  const auto factor_at = [&](int64_t i, int64_t j) {
    return Matrices{.data = workspace.factors + i * n + j, .ld = n, .stride = all * n};
  };
  const auto inverse_at = [&](int64_t i) {
    return Matrices{.data = workspace.inverses + i * width, .ld = width, .stride = n * width};
  };
  const auto solution_at = [&](int64_t j) {
    return Matrices{.data = systems.solutions + first * r * n + j, .ld = n, .stride = r * n};
  };
  // out = given L^-op for `rows` rows; `given` is overwritten.
  const auto divide = [&](cublasOperation_t op, int64_t rows, int64_t count, const Matrices& factor,
                          const Matrices& inverse, const Matrices& given, const Matrices& out) {
    multiply(scope, batch, op, count, rows, count, 1.0, inverse, given, 0.0, out);
    multiply(scope, batch, op, count, rows, count, -1.0, factor, out, 1.0, given);
    multiply(scope, batch, op, count, rows, count, 1.0, inverse, given, 1.0, out);
  };
  for (int64_t start = 0; start < n; start += width) {
    const int64_t count = std::min<int64_t>(width, n - start), rows = all - start;
    const BlockColumn block{.first = first, .start = start, .count = count, .rows = rows};
    const auto column_at = [&](int64_t i) {
      return Matrices{.data = workspace.columns + i * width, .ld = width, .stride = rows * width};
    };
    launch("load_columns", &load_kernel, grid_of(ceil_div(rows * width, threads), batch), threads, 0,
           scope.context.compute, systems, block, workspace.columns);
    multiply(scope, batch, CUBLAS_OP_T, count, rows, start, -1.0, factor_at(start, 0), factor_at(start, 0), 1.0,
             column_at(0));
    launch("factor_diagonal", &factor_kernel, grid_of(batch), factor_threads,
           2 * width * static_cast<int64_t>(sizeof(double)), scope.context.compute, block, workspace.columns,
           factor_at(start, start), inverse_at(start), pivots);
    divide(CUBLAS_OP_T, rows - count, count, factor_at(start, start), inverse_at(start), column_at(count),
           factor_at(start + count, start));
  }
  for (int64_t start = (n - 1) / width * width; start >= 0 && r > 0; start -= width) {
    const int64_t count = std::min<int64_t>(width, n - start);
    divide(CUBLAS_OP_N, r, count, factor_at(start, start), inverse_at(start), factor_at(n, start), solution_at(start));
    multiply(scope, batch, CUBLAS_OP_N, start, r, count, -1.0, factor_at(start, 0), solution_at(start), 1.0,
             factor_at(n, 0));
  }
}

void solve_large(Scope& scope, const Systems& systems, Pivots* pivots) {
  const int64_t n = systems.n, all = n + systems.r;
  const int64_t bytes = (all * n + n * width + all * width) * static_cast<int64_t>(sizeof(double));
  const int64_t together =
      std::min<int64_t>(scope.fit_rows("a Cholesky factorisation", 0, bytes, systems.batch), 65535);
  const Workspace workspace{.factors = scope.device<double>(together * all * n),
                            .inverses = scope.device<double>(together * n * width),
                            .columns = scope.device<double>(together * all * width)};
  for (int64_t first = 0; first < systems.batch; first += together) {
    solve_together(scope, systems, first, std::min(together, systems.batch - first), workspace, pivots);
  }
}

}  // namespace

std::vector<Pivots> cholesky_solve(Scope& scope, const Systems& systems) {
  std::vector<Pivots> pivots(static_cast<size_t>(systems.batch));
  const Scope::Mark before = scope.mark();
  auto* on_device = scope.device<Pivots>(systems.batch);
  if (systems.n <= small_n) {
    solve_small(scope, systems, on_device);
  } else {
    solve_large(scope, systems, on_device);
  }
  scope.download(pivots.data(), on_device, systems.batch);
  scope.release_to(before);
  return pivots;
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
                        .rhs_stride = r * n,
                        .solutions = right,
                        .batch = batch,
                        .n = n,
                        .r = r};
  for (const Pivots& pivots : cholesky_solve(scope, systems)) {
    if (pivots.failed > 0) {
      throw NotPositiveDefinite(pivots.failed);
    }
  }
  scope.download(rhs, right, batch * r * n);
}

}  // namespace krrdistill::cuda
