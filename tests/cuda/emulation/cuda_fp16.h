// float16 as csrc/cuda uses it: stored, and converted to float32.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half x) {
  const int exponent = x.bits >> 10 & 31, digits = x.bits & 1023;
  const float size = exponent == 31  ? (digits == 0 ? std::numeric_limits<float>::infinity() : std::nanf(""))
                     : exponent == 0 ? std::ldexp(static_cast<float>(digits), -24)
                                     : std::ldexp(static_cast<float>(1024 + digits), exponent - 25);
  return x.bits >> 15 != 0 ? -size : size;
}
