// Element-wise kernels over whole 16-byte vectors. Device matrices have row strides of pitch(width): a kernel also
// works on the few elements between the width and the stride, which nobody reads.
#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

// x * scale + shift on the device: floats take the factors of the map, in double, bytes the rounded ones. One of the
// pairs is there, or none: a plain conversion.
template <typename T>
struct Factors {
  const double* scale = nullptr;
  const double* shift = nullptr;
  const T* rounded_scale = nullptr;
  const T* rounded_shift = nullptr;
};

// out (count rows, stride pitch(d)) = x * scale + shift, zero beyond column d. x has the same stride in its own
// elements. first_bad becomes at most first + row for every row of `out` that holds NaN or infinity.
template <typename T>
void standardise(cudaStream_t stream, const void* x, InputType type, const Factors<T>& factors, T* out, int64_t count,
                 int64_t d, int64_t first, unsigned long long* first_bad);

// out (count rows, stride pitch(d)) = rows of `source`, which is on the device, as they are stored.
void gather(cudaStream_t stream, const Source& source, const int64_t* rows, void* out, int64_t count, int64_t d);

// x (count rows, stride pitch(layer.outputs)) = act(x + bias).
template <typename T>
void epilogue(cudaStream_t stream, const Layer<T>& layer, T* x, int64_t count);

// out = x, in double.
void widen(cudaStream_t stream, const float* x, double* out, int64_t n);

// sum += sign x (rows of p, both with stride p) in double; `lower`: only elements (i, j) with j <= i.
template <typename T>
void add(cudaStream_t stream, const T* x, double* sum, int64_t rows, int64_t p, bool lower, double sign = 1.0);

}  // namespace krrdistill::cuda
