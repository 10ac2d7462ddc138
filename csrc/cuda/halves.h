// Numbers of 16 bits, every one of which float32 holds.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace krrdistill::cuda {

template <typename T>
__device__ inline T widen(T x) {
  return x;
}
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

}  // namespace krrdistill::cuda
