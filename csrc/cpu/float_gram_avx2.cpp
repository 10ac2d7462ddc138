// Products of floats for instruction set "avx2"; the flags are in cmake/isa.cmake.
#include "cpu/float_gram_impl.h"

namespace krrdistill {
namespace {

// 12 sums, 3 vectors of the right panel and a number of the left one take the 16 registers.
struct Simd {
  using Vector = __m256;
  static constexpr int64_t lanes = 8;
  static constexpr int64_t vectors = 3;
  static constexpr int64_t rows = 4;
  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector load(const float* numbers) { return _mm256_loadu_ps(numbers); }
  static Vector broadcast(float number) { return _mm256_set1_ps(number); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
  static Vector multiply_add(Vector sum, Vector a, Vector b) { return _mm256_fmadd_ps(a, b, sum); }
  static void store(float* numbers, Vector sum) { _mm256_storeu_ps(numbers, sum); }
};

}  // namespace

const FloatGramKernel& float_gram_avx2() {
  static constexpr FloatGramKernel kernel{.columns = panel_columns<Simd>, .multiply = &multiply<Simd>};
  return kernel;
}

}  // namespace krrdistill
