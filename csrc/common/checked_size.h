// Sizes of workspaces from what callers choose freely: too large ones throw instead of wrapping around.
#pragma once

#include <cstdint>
#include <stdexcept>

namespace krrdistill {

inline int64_t checked_product(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) {
    throw std::length_error("the size of a workspace does not fit 64 bits; use smaller tiles");
  }
  return result;
}

template <typename... Sizes>
int64_t checked_sum(int64_t a, Sizes... more) {
  int64_t result = a;
  const bool overflow = (__builtin_add_overflow(result, more, &result) || ...);
  if (overflow) {
    throw std::length_error("the size of a workspace does not fit 64 bits; use smaller tiles");
  }
  return result;
}

}  // namespace krrdistill
