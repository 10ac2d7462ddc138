// Products of floats for instruction set "avx512"; the flags are in cmake/isa.cmake.
#include "cpu/float_gram_impl.h"

namespace krrdistill {
namespace {

// 16 sums, twice what two units with a latency of four cycles keep busy; more registers bring nothing.
struct Simd {
  using Vector = __m512;
  static constexpr int64_t lanes = 16;
  static constexpr int64_t vectors = 2;
  static constexpr int64_t rows = 8;
  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector load(const float* numbers) { return _mm512_loadu_ps(numbers); }
  static Vector broadcast(float number) { return _mm512_set1_ps(number); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector multiply_add(Vector sum, Vector a, Vector b) { return _mm512_fmadd_ps(a, b, sum); }
  static void store(float* numbers, Vector sum) { _mm512_storeu_ps(numbers, sum); }
};

}  // namespace

const FloatGramKernel& float_gram_avx512() {
  static constexpr FloatGramKernel kernel{.columns = panel_columns<Simd>, .multiply = &multiply<Simd>};
  return kernel;
}

}  // namespace krrdistill
