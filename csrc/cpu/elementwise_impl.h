// The element-wise row kernels, as plain loops that the compiler vectorises for the flags of the
// including file. Included by elementwise_{base,avx2,avx512}.cpp only; everything has internal linkage,
// so that no instruction of one set can leak into another through the linker.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

#include "cpu/elementwise_tables.h"

namespace krrdistill {
namespace {

// A sum of zeros unless some element is NaN or infinite: x - x is 0 only for finite x.
template <typename T>
inline T nonfinite_mark(T x) {
  return x - x;
}

template <typename In, typename T>
bool load(const In* x, const T* scale, const T* shift, T* out, int64_t n) {
  T mark = 0;
  if (scale == nullptr) {
    for (int64_t j = 0; j < n; ++j) {
      out[j] = static_cast<T>(x[j]);
    }
  } else {
    for (int64_t j = 0; j < n; ++j) {
      out[j] = static_cast<T>(x[j]) * scale[j] + shift[j];
    }
  }
  if constexpr (sizeof(In) > 1) {  // a byte is always finite
    // Independent lanes: an order of additions that the compiler may vectorise without -ffast-math.
    constexpr int64_t lanes = 16;
    std::array<T, lanes> lane{};
    int64_t j = 0;
    for (; j + lanes <= n; j += lanes) {
      for (int64_t l = 0; l < lanes; ++l) {
        lane[l] += nonfinite_mark(out[j + l]);
      }
    }
    for (; j < n; ++j) {
      mark += nonfinite_mark(out[j]);
    }
    for (const T value : lane) {
      mark += value;
    }
  }
  return mark == T(0);
}

template <typename T>
void add_bias(T* x, const T* bias, int64_t n) {
  if (bias != nullptr) {
    for (int64_t j = 0; j < n; ++j) {
      x[j] += bias[j];
    }
  }
}

template <typename T>
void leaky_relu(T* x, const T* bias, T slope, int64_t n) {
  add_bias(x, bias, n);
  for (int64_t j = 0; j < n; ++j) {
    x[j] = x[j] > T(0) ? x[j] : slope * x[j];
  }
}

// cos for float: reduction to [-pi/4, pi/4] in double (error < 1e-10 for |x| <= 1e6), then polynomials for sin
// and cos whose last three coefficients are least-squares fits on Chebyshev nodes (error 3e-9 and 2e-10).
inline float cos_reduced(float x) {
  constexpr double two_over_pi = 0.63661977236758134308;
  constexpr double half_pi = 1.57079632679489661923;
  constexpr double round_magic = 6755399441055744.0;  // 1.5 * 2^52: adds, then subtracts, to round
  const double shifted = static_cast<double>(x) * two_over_pi + round_magic;
  const double quadrant_value = shifted - round_magic;
  const auto r = static_cast<float>(static_cast<double>(x) - quadrant_value * half_pi);
  const auto quadrant = static_cast<uint32_t>(std::bit_cast<uint64_t>(shifted));  // low bits of the magic sum
  const float z = r * r;
  const float c = 1.0f + z * (-0.5f + z * (4.166665465e-2f + z * (-1.388771917e-3f + z * 2.447582979e-5f)));
  const float s = r + r * z * (-1.666665467e-1f + z * (8.332165526e-3f + z * -1.951592062e-4f));
  const float value = (quadrant & 1U) != 0 ? s : c;
  return ((quadrant + 1U) & 2U) != 0 ? -value : value;
}

constexpr float cos_reduction_limit = 1.0e6f;

inline void scaled_cos(float* x, const float* bias, float scale, int64_t n) {
  add_bias(x, bias, n);
  constexpr int64_t block = 64;
  for (int64_t start = 0; start < n; start += block) {
    const int64_t stop = start + block < n ? start + block : n;
    float largest = 0.0f;
    for (int64_t j = start; j < stop; ++j) {
      const float magnitude = std::fabs(x[j]);
      largest = magnitude > largest ? magnitude : largest;
    }
    if (largest <= cos_reduction_limit) {
      for (int64_t j = start; j < stop; ++j) {
        x[j] = scale * cos_reduced(x[j]);
      }
    } else {
      for (int64_t j = start; j < stop; ++j) {
        x[j] = scale * std::cos(x[j]);
      }
    }
  }
}

inline void scaled_cos(double* x, const double* bias, double scale, int64_t n) {
  add_bias(x, bias, n);
  for (int64_t j = 0; j < n; ++j) {
    x[j] = scale * std::cos(x[j]);
  }
}

template <typename T>
void accumulate(const T* x, double* sum, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    sum[j] += static_cast<double>(x[j]);
  }
}

template <typename T>
constexpr ElementwiseKernels<T> make_table() {
  ElementwiseKernels<T> table{};
  table.load_u8 = &load<uint8_t, T>;
  table.load_f32 = &load<float, T>;
  table.load_f64 = &load<double, T>;
  table.add_bias = &add_bias<T>;
  table.leaky_relu = &leaky_relu<T>;
  table.scaled_cos = static_cast<void (*)(T*, const T*, T, int64_t)>(&scaled_cos);
  table.accumulate = &accumulate<T>;
  return table;
}

}  // namespace
}  // namespace krrdistill
