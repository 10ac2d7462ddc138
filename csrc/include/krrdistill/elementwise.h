// Element-wise row kernels and the Walsh-Hadamard transform, compiled once per instruction set. Every function works
// on one contiguous row of n elements and allocates nothing.
#pragma once

#include <cstdint>

namespace krrdistill {

// Numbers of 16 bits as they are stored; every one of them is a float.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <typename T>
struct ElementwiseKernels {
  // out = x * scale + shift, of floats in double; scale == nullptr means a plain conversion. Returns false when out
  // holds NaN or infinity.
  bool (*load_u8)(const uint8_t* x, const T* scale, const T* shift, T* out, int64_t n);
  bool (*load_f32)(const float* x, const double* scale, const double* shift, T* out, int64_t n);
  bool (*load_f16)(const Float16* x, const double* scale, const double* shift, T* out, int64_t n);
  bool (*load_bf16)(const BFloat16* x, const double* scale, const double* shift, T* out, int64_t n);
  bool (*load_f64)(const double* x, const double* scale, const double* shift, T* out, int64_t n);
  // In place; bias may be null.
  void (*add_bias)(T* x, const T* bias, int64_t n);
  void (*leaky_relu)(T* x, const T* bias, T slope, int64_t n);       // v > 0 ? v : slope * v,  v = x + bias
  void (*scaled_cos)(T* x, const T* bias, T scale, int64_t n);       // scale * cos(x + bias)
  void (*multiply)(const T* x, const T* factor, T* out, int64_t n);  // out may be x
  // sum += x in double.
  void (*accumulate)(const T* x, double* sum, int64_t n);
  // x = H x, H of +-1 in Sylvester's order; n is a power of two.
  void (*walsh_hadamard)(T* x, int64_t n);
};

// The table of the current instruction set (isa.h).
template <typename T>
const ElementwiseKernels<T>& elementwise();

}  // namespace krrdistill
