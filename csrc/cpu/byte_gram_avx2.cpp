// Products of bytes for instruction set "avx2"; the flags are in cmake/isa.cmake.
#include "cpu/byte_gram_impl.h"

namespace krrdistill {
namespace {

// 8 sums, 2 vectors of the right panel and a word of the left one stay in the 16 registers.
struct Simd {
  using Vector = __m256i;
  static constexpr int64_t lanes = 8;
  static constexpr int64_t rows = 4;
  static Vector load(const void* words) { return _mm256_loadu_si256(static_cast<const __m256i*>(words)); }
  static Vector broadcast(int32_t word) { return _mm256_set1_epi32(word); }
  static Vector multiply_add(Vector sum, Vector a, Vector b) { return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b)); }
  static void store(void* words, Vector sum) { _mm256_storeu_si256(static_cast<__m256i*>(words), sum); }
};

}  // namespace

void byte_gram_avx2(const int16_t* left, const int16_t* right, int64_t pairs, int32_t* gram, int64_t ld) {
  multiply<Simd>(left, right, pairs, gram, ld);
}

}  // namespace krrdistill
