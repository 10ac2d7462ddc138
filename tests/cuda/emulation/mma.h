// Products of matrices by the 32 lanes of a warp, as csrc/cuda uses them. What comes of them is that of real tensor
// cores of compute capability 8.0 (Fasi, Higham, Mikaitis and Pranesh 2021): eight exact products at a time and the sum
// so far are aligned to the largest of them, truncated one bit under the last of float32, added exactly, and the sum is
// truncated to float32. Of sixteen products and two bits, as those of 9.0 have, the error is about half.
//
// Each lane holds the whole of both operands, as they were when it loaded them, and its own elements of the result.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "cuda_runtime.h"

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int m, int n, int k, typename T, typename Layout = void>
class fragment;

struct Operand {
  float v[16][16];  // contiguous along the depth
};
template <typename T, typename Layout>
class fragment<matrix_a, 16, 16, 16, T, Layout> : public Operand {};
template <typename T, typename Layout>
class fragment<matrix_b, 16, 16, 16, T, Layout> : public Operand {};

template <>
class fragment<accumulator, 16, 16, 16, float> {
 public:
  enum { num_elements = 8 };
  float x[num_elements];
};
using Sums = fragment<accumulator, 16, 16, 16, float>;

// Which of the 256 elements a lane has is nobody's business.
inline unsigned element_of(int t) { return threadIdx.x % 32 * 8 + (static_cast<unsigned>(t) ^ 5U); }

inline void require(bool held, const char* what) {
  if (!held) {
    std::fprintf(stderr, "emulation: %s\n", what);
    std::abort();
  }
}

inline void check_matrix(const void* memory, unsigned ld, unsigned multiple) {
  require(reinterpret_cast<uintptr_t>(memory) % 32 == 0, "a matrix of a warp does not start on a 32-byte boundary");
  require(ld % multiple == 0, "the rows of a matrix of a warp are not 16 bytes apart");
}

inline float value_of(__half x) { return __half2float(x); }
inline float value_of(__nv_bfloat16 x) { return __bfloat162float(x); }

// Rows of memory lie along the depth, or across it.
template <typename T>
void load_operand(Operand& to, const T* from, unsigned ld, bool along) {
  check_matrix(from, ld, 8);
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < 16; ++column) {
      (along ? to.v[row][column] : to.v[column][row]) = value_of(from[row * ld + column]);
    }
  }
}
template <typename T>
void load_matrix_sync(fragment<matrix_a, 16, 16, 16, T, col_major>& a, const T* from, unsigned ld) {
  load_operand(a, from, ld, false);
}
template <typename T>
void load_matrix_sync(fragment<matrix_b, 16, 16, 16, T, row_major>& b, const T* from, unsigned ld) {
  load_operand(b, from, ld, false);
}

inline void fill_fragment(Sums& sums, float value) {
  for (float& x : sums.x) {
    x = value;
  }
}

inline double power_of_two(int exponent) {
  const uint64_t bits = static_cast<uint64_t>(exponent + 1023) << 52;
  double value = 0.0;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

inline int exponent_of(double x) {
  uint64_t bits = 0;
  std::memcpy(&bits, &x, sizeof(bits));
  return static_cast<int>(bits >> 52 & 2047) - 1023;
}

// sum + the products of eight numbers; a sum beyond float32 stays its largest number.
inline float add_eight(const float* a, const float* b, float sum) {
  double terms[9], largest = 0.0;
  for (int i = 0; i < 9; ++i) {
    terms[i] = i < 8 ? static_cast<double>(a[i]) * b[i] : sum;
    largest = std::fabs(terms[i]) > largest ? std::fabs(terms[i]) : largest;
  }
  double plain = 0.0;
  for (const double term : terms) {
    plain += term;
  }
  if (largest == 0.0 || !std::isfinite(plain)) {
    return static_cast<float>(plain);
  }
  const int unit = exponent_of(largest) - 24;
  const double scale = power_of_two(-unit);
  int64_t total = 0;
  for (const double term : terms) {
    total += static_cast<int64_t>(term * scale);
  }
  double result = static_cast<double>(total) * power_of_two(unit);
  uint64_t bits = 0;
  std::memcpy(&bits, &result, sizeof(bits));
  bits &= ~((uint64_t{1} << 29) - 1);
  std::memcpy(&result, &bits, sizeof(bits));
  constexpr double most = 3.4028234663852886e38;
  return static_cast<float>(result > most ? most : result < -most ? -most : result);
}

template <typename T>
void mma_sync(Sums& out, const fragment<matrix_a, 16, 16, 16, T, col_major>& a,
              const fragment<matrix_b, 16, 16, 16, T, row_major>& b, const Sums& sums) {
  for (int t = 0; t < Sums::num_elements; ++t) {
    const unsigned element = element_of(t);
    const float *row = a.v[element / 16], *column = b.v[element % 16];
    out.x[t] = add_eight(row + 8, column + 8, add_eight(row, column, sums.x[t]));
  }
}

inline void store_matrix_sync(float* to, const Sums& sums, unsigned ld, layout_t layout) {
  check_matrix(to, ld, 4);
  require(layout == mem_row_major, "matrices of warps are stored by rows");
  for (int t = 0; t < Sums::num_elements; ++t) {
    const unsigned element = element_of(t);
    to[element / 16 * ld + element % 16] = sums.x[t];
  }
}

}  // namespace nvcuda::wmma
