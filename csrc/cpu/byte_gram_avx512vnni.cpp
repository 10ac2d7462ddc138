// Products of bytes for CPUs of level "avx512" that have VNNI, too; the flags are in cmake/isa.cmake.
#include "cpu/byte_gram_impl.h"

namespace krrdistill {
namespace {

// 16 sums of the 32 registers: enough to hide the latency of two multipliers.
struct Simd {
  using Vector = __m512i;
  static constexpr int64_t lanes = 16;
  static constexpr int64_t rows = 16;
  static Vector load(const void* words) { return _mm512_loadu_si512(words); }
  static Vector broadcast(int32_t word) { return _mm512_set1_epi32(word); }
  static Vector multiply_add(Vector sum, Vector a, Vector b) { return _mm512_dpwssd_epi32(sum, a, b); }
  static void store(void* words, Vector sum) { _mm512_storeu_si512(words, sum); }
};

}  // namespace

void byte_gram_avx512vnni(const int16_t* left, const int16_t* right, int64_t pairs, int32_t* gram, int64_t ld) {
  multiply<Simd>(left, right, pairs, gram, ld);
}

}  // namespace krrdistill
