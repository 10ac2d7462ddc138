// The rounds of one row by one block, in shared memory where the row fits, in place otherwise.
#include "cuda/hadamard.h"

#include <algorithm>

#include "cuda/dense.h"
#include "cuda/shared.h"

namespace krrdistill::cuda {
namespace {

constexpr int most_threads = 256;
constexpr int64_t shared_limit = 48 << 10;

// x (n) = H x; ends with a barrier.
template <typename T>
__device__ void walsh_hadamard(T* x, int64_t n) {
  for (int64_t stride = 1; stride < n; stride *= 2) {
    for (int64_t t = threadIdx.x; t < n / 2; t += blockDim.x) {
      const int64_t i = t / stride * 2 * stride + t % stride;
      const T a = x[i], b = x[i + stride];
      x[i] = a + b;
      x[i + stride] = a - b;
    }
    __syncthreads();
  }
}

template <typename T>
__device__ void multiply(T* x, const T* factor, int64_t n) {
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    x[i] *= factor[i];
  }
  __syncthreads();
}

template <typename T>
__device__ void swap_ends(const Hadamard<T>& a, T* x) {
  const int64_t ends = (a.inputs - a.block + 1) / 2;
  for (int64_t i = threadIdx.x; i < ends; i += blockDim.x) {
    const T first = x[i];
    x[i] = x[a.inputs - ends + i];
    x[a.inputs - ends + i] = first;
  }
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(most_threads)
    apply_kernel(Hadamard<T> a, T* x, int64_t x_ld, T* out, int64_t out_ld, bool in_shared) {
  T* source = x + blockIdx.x * x_ld;
  T* row = in_shared ? shared_memory<T>() : source;
  if (in_shared) {
    for (int64_t i = threadIdx.x; i < a.inputs; i += blockDim.x) {
      row[i] = source[i];
    }
    __syncthreads();
  }
  T* last = row + a.inputs - a.block;
  for (int64_t round = 0; round < a.rounds; ++round) {
    const T* diagonal = a.diagonals + round * 2 * a.block;
    swap_ends(a, row);
    multiply(row, diagonal, a.block);
    walsh_hadamard(row, a.block);
    multiply(last, diagonal + a.block, a.block);
    walsh_hadamard(last, a.block);
  }
  for (int64_t i = threadIdx.x; i < a.outputs; i += blockDim.x) {
    out[blockIdx.x * out_ld + i] = row[i] * a.scale[i];
  }
}

// x (m, inputs): the transposed rounds in reverse; H is symmetric.
__global__ void __launch_bounds__(most_threads)
    solve_kernel(Hadamard<double> a, const double* rhs, double* x, bool in_shared) {
  double* target = x + blockIdx.x * a.inputs;
  double* row = in_shared ? shared_memory<double>() : target;
  for (int64_t i = threadIdx.x; i < a.inputs; i += blockDim.x) {
    row[i] = i < a.outputs ? rhs[blockIdx.x * a.outputs + i] / a.scale[i] : 0.0;
  }
  __syncthreads();
  double* last = row + a.inputs - a.block;
  for (int64_t round = a.rounds - 1; round >= 0; --round) {
    const double* diagonal = a.diagonals + round * 2 * a.block;
    walsh_hadamard(last, a.block);
    multiply(last, diagonal + a.block, a.block);
    walsh_hadamard(row, a.block);
    multiply(row, diagonal, a.block);
    swap_ends(a, row);
  }
  if (in_shared) {
    for (int64_t i = threadIdx.x; i < a.inputs; i += blockDim.x) {
      target[i] = row[i];
    }
  }
}

template <typename T>
int threads_of(const Hadamard<T>& a) {
  return narrow(std::clamp<int64_t>(ceil_div(a.block / 2, 32) * 32, 32, most_threads));
}

template <typename T>
int64_t shared_of(const Hadamard<T>& a) {
  const int64_t bytes = a.inputs * static_cast<int64_t>(sizeof(T));
  return bytes <= shared_limit ? bytes : 0;
}

}  // namespace

template <typename T>
Hadamard<T> upload(Scope& scope, const Hadamard<T>& a) {
  Hadamard<T> result = a;
  result.diagonals = scope.upload(a.diagonals, a.rounds * 2 * a.block);
  result.scale = scope.upload(a.scale, a.outputs);
  return result;
}

template <typename T>
void hadamard_apply(cudaStream_t stream, const Hadamard<T>& a, T* x, T* out, int64_t count) {
  const int64_t shared = shared_of(a);
  launch("hadamard_apply", &apply_kernel<T>, grid_of(count), threads_of(a), shared, stream, a, x, pitch(a.inputs), out,
         pitch(a.outputs), shared > 0);
}

namespace {

// x (m, inputs) on the device, for right sides there
double* solve_on(Scope& scope, const Hadamard<double>& a, const double* right, int64_t m) {
  const Hadamard<double> device = upload(scope, a);
  auto* left = scope.device<double>(m * a.inputs);
  const int64_t shared = shared_of(a);
  if (m > 0) {
    launch("hadamard_solve", &solve_kernel, grid_of(m), threads_of(a), shared, scope.context.compute, device, right,
           left, shared > 0);
  }
  return left;
}

}  // namespace

void hadamard_solve(Context& context, const Hadamard<double>& a, const double* rhs, double* x, int64_t m) {
  if (m == 0) {
    return;
  }
  Scope scope(context);
  const double* right = scope.upload(rhs, m * a.outputs);
  scope.download(x, solve_on(scope, a, right, m), m * a.inputs);
}

Resident hadamard_preimages_here(Context& context, const Hadamard<double>& a, const Operand& rhs) {
  Scope scope(context);
  return scope.keep_here(solve_on(scope, a, rhs.data, rhs.rows));
}

template Hadamard<float> upload(Scope&, const Hadamard<float>&);
template Hadamard<double> upload(Scope&, const Hadamard<double>&);
template void hadamard_apply(cudaStream_t, const Hadamard<float>&, float*, float*, int64_t);
template void hadamard_apply(cudaStream_t, const Hadamard<double>&, double*, double*, int64_t);

}  // namespace krrdistill::cuda
