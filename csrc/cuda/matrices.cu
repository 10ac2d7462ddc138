#include "cuda/matrices.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cuda/shared.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 256;
constexpr int64_t most_blocks = 1024;  // of a sum over all elements
constexpr double period = 6.283185307179586;

// An element (i, j) is at data[i row + j column].
struct Strided {
  const double* data;
  int64_t row;
  int64_t column;
};

// out (rows, columns) = alpha a + beta b, out and a contiguous by rows; out may be a.
__global__ void __launch_bounds__(threads)
    combine_kernel(double alpha, const double* a, double beta, Strided b, double* out, int64_t rows, int64_t columns) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns) {
    return;
  }
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const int64_t index = row * columns + column;
    out[index] = alpha * a[index] + beta * b.data[row * b.row + column * b.column];
  }
}

// out (rows, columns) = a times the factors of rows or columns
__global__ void __launch_bounds__(threads)
    scale_kernel(const double* a, const double* factors, bool of_rows, double* out, int64_t rows, int64_t columns) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns) {
    return;
  }
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    out[row * columns + column] = a[row * columns + column] * factors[of_rows ? row : column];
  }
}

// partial[block] = max |a| over the elements of a block, NaN if one of them is.
__global__ void __launch_bounds__(threads) largest_kernel(const double* a, int64_t n, double* partial) {
  double* found = shared_memory<double>();
  const int tid = static_cast<int>(threadIdx.x);
  double best = 0.0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * threads + tid; i < n;
       i += static_cast<int64_t>(gridDim.x) * threads) {
    const double size = fabs(a[i]);
    best = size <= best ? best : size;  // NaN is not less than anything, nor anything than it
    if (size != size) {
      break;
    }
  }
  found[tid] = best;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (tid < half) {
      const double other = found[tid + half];
      found[tid] = found[tid] != found[tid] || other <= found[tid] ? found[tid] : other;
    }
  }
  if (tid == 0) {
    partial[blockIdx.x] = found[0];
  }
}

__global__ void __launch_bounds__(threads)
    shift_kernel(const double* a, int64_t n, double shift, double* out, double* sums) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= n) {
    return;
  }
  double sum = 0.0;
  for (int64_t row = 0; row < n; ++row) {
    const double value = a[row * n + column] + (row == column ? shift : 0.0);
    out[row * n + column] = value;
    sum += fabs(value);
  }
  sums[column] = sum;
}

__global__ void __launch_bounds__(threads) cosines_kernel(Cosines of, double* out, int64_t rows, int64_t columns) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns) {
    return;
  }
  const int64_t j = column - (columns - of.odd);
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const int64_t i = row - (rows - of.chosen);
    double value = 0.0;
    if (i >= 0 && j >= 0) {
      const int64_t frequency = of.frequencies[i];
      value = frequency == 0 ? of.flat : of.table[frequency * (2 * j + 1) % (4 * of.order)];
      value = of.row_signs[i] < 0 ? -value : value;
      value = of.column_signs[j] < 0 ? -value : value;
    }
    out[row * columns + column] = value;
  }
}

// The angle among +-arccos + 2 pi j that is nearest to `near`.
__device__ double nearest_angle(double cosine, double near) {
  const double theta = acos(cosine < -1.0 ? -1.0 : (cosine > 1.0 ? 1.0 : cosine));
  const double up = theta + period * rint((near - theta) / period);
  const double down = -theta + period * rint((near + theta) / period);
  return fabs(up - near) <= fabs(down - near) ? up : down;
}

__global__ void __launch_bounds__(threads) undo_kernel(Activation activation, double parameter, Strided h, Strided b,
                                                       double* out, int64_t rows, int64_t columns) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= columns) {
    return;
  }
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const double near = b.data[row * b.row + column * b.column];
    double value = h.data[row * h.row + column * h.column];
    if (activation == Activation::leaky_relu) {
      value = value > 0.0 ? value : value / parameter;
    } else if (activation == Activation::cosine) {
      value = nearest_angle(value / parameter, near);
    }
    out[row * columns + column] = value - near;
  }
}

// One row stands for as many as there are.
Strided strided(Scope& scope, const Operand& a) {
  return {.data = operand(scope, a), .row = a.rows == 1 ? 0 : a.row_stride(), .column = a.column_stride()};
}

void combine_to(Scope& scope, double alpha, const Operand& a, double beta, const Operand& b, double* out) {
  const double* data = operand(scope, a);
  Strided other = strided(scope, b);
  int64_t rows = a.rows, columns = a.columns;
  if (a.by_columns) {
    std::swap(rows, columns);
    std::swap(other.row, other.column);
  }
  launch("combine", &combine_kernel, grid_of(ceil_div(columns, threads), rows), threads, 0, scope.context.compute,
         alpha, data, beta, other, out, rows, columns);
}

// Whether they share memory, but not each element with the one in its place: a matrix and its transpose, or its rows.
bool entangled(const Operand& a, const Operand& b) {
  const bool apart = !b.on_device || a.data + a.size() <= b.data || b.data + b.size() <= a.data;
  return !apart && (a.data != b.data || a.rows != b.rows || a.by_columns != b.by_columns);
}

}  // namespace

void shift_diagonal(cudaStream_t stream, const double* a, int64_t n, double shift, double* out, double* sums) {
  launch("shift_diagonal", &shift_kernel, grid_of(ceil_div(n, threads)), threads, 0, stream, a, n, shift, out, sums);
}

Resident combine(Context& context, double alpha, const Operand& a, double beta, const Operand& b) {
  Scope scope(context);
  auto* out = scope.device<double>(a.size());
  combine_to(scope, alpha, a, beta, b, out);
  return scope.keep_here(out);
}

void combine_into(Context& context, double alpha, const Operand& a, double beta, const Operand& b) {
  Scope scope(context);
  Operand other = b;
  if (entangled(a, b)) {  // elements would be read after they were written
    other.data = copy_of(scope, b);
  }
  combine_to(scope, alpha, a, beta, other, const_cast<double*>(a.data));
}

Resident scale_columns(Context& context, const Operand& a, const double* factors) {
  const int64_t rows = a.by_columns ? a.columns : a.rows, columns = a.by_columns ? a.rows : a.columns;
  Scope scope(context);
  auto* out = scope.device<double>(a.size());
  launch("scale_columns", &scale_kernel, grid_of(ceil_div(columns, threads), rows), threads, 0, context.compute,
         operand(scope, a), scope.upload(factors, a.columns), a.by_columns, out, rows, columns);
  return scope.keep_here(out);
}

double largest_magnitude(Context& context, const Operand& a) {
  const int64_t blocks = std::clamp<int64_t>(ceil_div(a.size(), threads), 1, most_blocks);
  std::vector<double> partial(static_cast<size_t>(blocks));  // before the scope, which waits for copies to it
  Scope scope(context);
  auto* found = scope.device<double>(blocks);
  launch("largest_magnitude", &largest_kernel, grid_of(blocks), threads, threads * static_cast<int64_t>(sizeof(double)),
         context.compute, operand(scope, a), a.size(), found);
  scope.download(partial.data(), found, blocks);
  double largest = 0.0;
  for (const double value : partial) {
    largest = std::isnan(largest) || value <= largest ? largest : value;
  }
  return largest;
}

Resident cosines(Context& context, const Cosines& cosines, int64_t rows, int64_t columns) {
  Scope scope(context);
  Cosines there = cosines;
  there.table = scope.upload(cosines.table, 4 * cosines.order);
  there.frequencies = scope.upload(cosines.frequencies, cosines.chosen);
  there.row_signs = scope.upload(cosines.row_signs, cosines.chosen);
  there.column_signs = scope.upload(cosines.column_signs, cosines.odd);
  auto* out = scope.device<double>(rows * columns);
  launch("cosines", &cosines_kernel, grid_of(ceil_div(columns, threads), rows), threads, 0, context.compute, there, out,
         rows, columns);
  return scope.keep_here(out);
}

Resident undo_activation(Context& context, Activation activation, double parameter, const Operand& h,
                         const Operand& b) {
  Scope scope(context);
  auto* out = scope.device<double>(h.size());
  launch("undo_activation", &undo_kernel, grid_of(ceil_div(h.columns, threads), h.rows), threads, 0, context.compute,
         activation, parameter, strided(scope, h), strided(scope, b), out, h.rows, h.columns);
  return scope.keep_here(out);
}

}  // namespace krrdistill::cuda
