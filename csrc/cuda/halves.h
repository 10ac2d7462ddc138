// Numbers of 16 bits, every one of which float32 holds.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace krrdistill::cuda {

template <typename T>
__device__ inline T widen(T x) {
  return x;
}
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

// The bits of the exponent: all of them are set in infinity and NaN.
template <typename Half>
constexpr uint16_t exponent_bits = 0x7C00;
template <>
inline constexpr uint16_t exponent_bits<__nv_bfloat16> = 0x7F80;

}  // namespace krrdistill::cuda
