// float16 as csrc/cuda uses it: stored, and converted to float32.
#pragma once

#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;
};

inline float __half2float(__half x) {
  // Exponent and digits where float32 has them, 2^112 too small, also those of subnormal numbers.
  const bool finite = (x.bits & 0x7C00) != 0x7C00;
  const uint32_t bits = static_cast<uint32_t>(x.bits & 0x7FFF) << 13 | (finite ? 0U : 0x7F800000U);
  float size = 0.0F;
  std::memcpy(&size, &bits, sizeof(size));
  size *= finite ? 0x1p112F : 1.0F;
  return x.bits >> 15 != 0 ? -size : size;
}
