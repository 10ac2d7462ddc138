// The element-wise row kernels, as plain loops that the compiler vectorises for the flags of the
// including file. Included by elementwise_{base,avx2,avx512}.cpp only; everything has internal linkage,
// so that no instruction of one set can leak into another through the linker.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>
#ifdef __F16C__
#include <immintrin.h>
#endif

#include "cpu/elementwise_tables.h"
#include "cpu/hadamard_impl.h"
#include "krrdistill/elementwise.h"

namespace krrdistill {
namespace {

// A sum of zeros unless some element is NaN or infinite: x - x is 0 only for finite x.
template <typename T>
inline T nonfinite_mark(T x) {
  return x - x;
}

template <typename In>
inline In widened(In x) {
  return x;
}

// The exponent of float16 is 112 smaller; a product brings it up, for subnormal numbers too.
inline float widened(Float16 x) {
  const uint32_t sign = (x.bits & 0x8000U) << 16U, magnitude = (x.bits & 0x7FFFU) << 13U;
  const auto finite = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112F);
  return std::bit_cast<float>(sign | ((x.bits & 0x7C00U) == 0x7C00U ? magnitude | 0x7F800000U : finite));
}

inline float widened(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16U); }

// out = x, for any two types.
template <typename In, typename T>
void convert(const In* x, T* out, int64_t n) {
  int64_t j = 0;
#ifdef __F16C__
  if constexpr (std::is_same_v<In, Float16> && std::is_same_v<T, float>) {
    for (; j + 8 <= n; j += 8) {
      _mm256_storeu_ps(out + j, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + j))));
    }
  }
#endif
  for (; j < n; ++j) {
    out[j] = static_cast<T>(widened(x[j]));
  }
}

// Factor: the type that x * scale + shift is computed in.
template <typename In, typename Factor, typename T>
bool load(const In* x, const Factor* scale, const Factor* shift, T* out, int64_t n) {
  T mark = 0;
  if (scale == nullptr) {
    convert(x, out, n);
  } else {
    for (int64_t j = 0; j < n; ++j) {
      out[j] = static_cast<T>(static_cast<Factor>(widened(x[j])) * scale[j] + shift[j]);
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

// cos for float: x = q pi/2 + r with |r| <= pi/4, pi/2 in three parts of which the first two times q are exact for
// |q| < 2^13, then polynomials for sin and cos whose last three coefficients are least-squares fits on Chebyshev
// nodes (error 3e-9 and 2e-10). Only float and int32 lanes, so that the loop fills the vectors.
inline float cos_reduced(float x) {
  constexpr float two_over_pi = 0.636619772F;
  constexpr float half_pi_high = 1.5703125F;                  // 8 bits
  constexpr float half_pi_middle = 4.837512969970703125e-4F;  // 11 bits
  constexpr float half_pi_low = 7.54978995489e-8F;
  constexpr float round_magic = 12582912.0F;  // 1.5 * 2^23: adds, then subtracts, to round
  const float shifted = x * two_over_pi + round_magic;
  const float q = shifted - round_magic;
  const float r = ((x - q * half_pi_high) - q * half_pi_middle) - q * half_pi_low;
  const auto quadrant = std::bit_cast<uint32_t>(shifted);  // its low bits are those of q
  const float z = r * r;
  const float c = 1.0F + z * (-0.5F + z * (4.166665465e-2F + z * (-1.388771917e-3F + z * 2.447582979e-5F)));
  const float s = r + r * z * (-1.666665467e-1F + z * (8.332165526e-3F + z * -1.951592062e-4F));
  const float value = (quadrant & 1U) != 0 ? s : c;
  const uint32_t sign = ((quadrant + 1U) & 2U) << 30U;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ sign);
}

constexpr float cos_reduction_limit = 8192.0F;

// The largest magnitude, compared as integers: a maximum of floats does not vectorise without -ffast-math.
inline float largest_magnitude(const float* x, int64_t n) {
  uint32_t largest = 0;
  for (int64_t j = 0; j < n; ++j) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(x[j]) & 0x7FFFFFFFU;
    largest = magnitude > largest ? magnitude : largest;
  }
  return std::bit_cast<float>(largest);
}

inline void scaled_cos(float* x, const float* bias, float scale, int64_t n) {
  add_bias(x, bias, n);
  if (largest_magnitude(x, n) <= cos_reduction_limit) {
    for (int64_t j = 0; j < n; ++j) {
      x[j] = scale * cos_reduced(x[j]);
    }
  } else {
    for (int64_t j = 0; j < n; ++j) {
      x[j] = scale * (std::fabs(x[j]) <= cos_reduction_limit ? cos_reduced(x[j]) : std::cos(x[j]));
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
void multiply(const T* x, const T* factor, T* out, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    out[j] = x[j] * factor[j];
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
  table.load_u8 = &load<uint8_t, T, T>;
  table.load_f32 = &load<float, double, T>;
  table.load_f16 = &load<Float16, double, T>;
  table.load_bf16 = &load<BFloat16, double, T>;
  table.load_f64 = &load<double, double, T>;
  table.add_bias = &add_bias<T>;
  table.leaky_relu = &leaky_relu<T>;
  table.scaled_cos = static_cast<void (*)(T*, const T*, T, int64_t)>(&scaled_cos);
  table.multiply = &multiply<T>;
  table.accumulate = &accumulate<T>;
  table.walsh_hadamard = &walsh_hadamard<T>;
  return table;
}

}  // namespace
}  // namespace krrdistill
