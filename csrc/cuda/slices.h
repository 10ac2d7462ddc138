// Numbers of 24 bits as three int8 digits of base 256: v = 2^16 high + 2^8 middle + low. A set of numbers whose largest
// magnitude is at most slice_most 2^(exponent - slice_bits) shares the exponent, and is rounded to multiples of
// 2^(exponent - slice_bits): about 2^-24 of its largest one.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace krrdistill::cuda {

constexpr int slice_bits = 23;
constexpr int slice_most = 127 * 65536 + 127 * 256 + 127;  // whose digits are all at most 127
constexpr int least_exponent = -100;                       // so that 2^(slice_bits - exponent) is a float32 number

struct Slices {
  int8_t high, middle, low;
};

// |value| <= slice_most. Digits lie in [-128, 127].
__device__ inline Slices slices_of(int value) {
  const auto low = static_cast<int8_t>(value & 255);
  const int rest = (value - low) >> 8;
  const auto middle = static_cast<int8_t>(rest & 255);
  return {static_cast<int8_t>((rest - middle) >> 8), middle, low};
}

// 2^16 high + 2^8 middle + low of sums of digits; exact, under 2^48.
__device__ inline int64_t joined(int64_t high, int64_t middle, int64_t low) {
  return high * 65536 + middle * 256 + low;
}

// The least exponent for a finite largest magnitude.
__device__ inline int slice_exponent(double largest) {
  int exponent = 0;
  if (frexp(largest, &exponent) > slice_most / static_cast<double>(1 << slice_bits)) {
    ++exponent;
  }
  return largest > 0.0 && exponent > least_exponent ? exponent : least_exponent;
}

}  // namespace krrdistill::cuda
