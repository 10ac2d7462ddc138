// What kernels share: 16-byte vectors, the index of a thread, activations.
#pragma once

#include <cuda_runtime.h>

#include "krrdistill/feature_map.h"

namespace krrdistill::cuda {

// Elements of T in one 16-byte vector.
template <typename T>
constexpr int lanes = static_cast<int>(16 / sizeof(T));

template <typename T, int n>
struct alignas(sizeof(T) * n < 16 ? sizeof(T) * n : 16) Pack {
  T v[n];
};

__device__ inline unsigned flat_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

__device__ inline float cosine(float x) { return cosf(x); }
__device__ inline double cosine(double x) { return cos(x); }

template <Activation activation, typename T>
__device__ inline T activate(T x, T parameter) {
  if constexpr (activation == Activation::leaky_relu) {
    return x > T(0) ? x : parameter * x;
  } else if constexpr (activation == Activation::cosine) {
    return parameter * cosine(x);
  } else {
    return x;
  }
}

}  // namespace krrdistill::cuda
