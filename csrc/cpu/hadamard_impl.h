// The fast Walsh-Hadamard transform in place, as plain loops that the compiler vectorises for the flags of the
// including file (elementwise_impl.h). Internal linkage only.
#pragma once

#include <cstdint>

namespace krrdistill {
namespace {

// Butterflies of strides h and 2 h in one pass. A stride that is a constant lets the compiler shuffle inside of
// vectors.
template <typename T>
inline void two_strides(T* x, int64_t n, int64_t h) {
  for (int64_t i = 0; i < n; i += 4 * h) {
    T* __restrict a = x + i;
    T* __restrict b = a + h;
    T* __restrict c = b + h;
    T* __restrict d = c + h;
    for (int64_t j = 0; j < h; ++j) {
      const T ab = a[j] + b[j], a_b = a[j] - b[j];
      const T cd = c[j] + d[j], c_d = c[j] - d[j];
      a[j] = ab + cd;
      b[j] = a_b + c_d;
      c[j] = ab - cd;
      d[j] = a_b - c_d;
    }
  }
}

template <typename T>
inline void one_stride(T* x, int64_t n, int64_t h) {
  for (int64_t i = 0; i < n; i += 2 * h) {
    T* __restrict a = x + i;
    T* __restrict b = a + h;
    for (int64_t j = 0; j < h; ++j) {
      const T sum = a[j] + b[j], difference = a[j] - b[j];
      a[j] = sum;
      b[j] = difference;
    }
  }
}

// x (n) = H x with H_2n = [[H_n, H_n], [H_n, -H_n]], n a power of two.
template <typename T>
void walsh_hadamard(T* x, int64_t n) {
  int64_t h = 1;
  if (n >= 16) {
    two_strides(x, n, int64_t{1});
    two_strides(x, n, int64_t{4});
    h = 16;
  }
  for (; 4 * h <= n; h *= 4) {
    two_strides(x, n, h);
  }
  for (; 2 * h <= n; h *= 2) {
    one_stride(x, n, h);
  }
}

}  // namespace
}  // namespace krrdistill
