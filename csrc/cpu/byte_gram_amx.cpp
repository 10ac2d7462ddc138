// Products of bytes on the tiles of AMX; the flags are in cmake/isa.cmake.
#include "cpu/amx_tiles.h"
#include "cpu/byte_gram_kernels.h"

namespace krrdistill {
namespace {

static_assert(tile_columns == 2 * tile_side && tile_rows == 4 * tile_side);

// Four rows of 16 columns to 16 words of four bytes.
__m512i words_of(const uint8_t* const* rows, int64_t column) {
  const auto row = [&](int64_t i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[i] + column)); };
  const __m128i even_low = _mm_unpacklo_epi8(row(0), row(1)), even_high = _mm_unpackhi_epi8(row(0), row(1));
  const __m128i odd_low = _mm_unpacklo_epi8(row(2), row(3)), odd_high = _mm_unpackhi_epi8(row(2), row(3));
  __m512i words = _mm512_castsi128_si512(_mm_unpacklo_epi16(even_low, odd_low));
  words = _mm512_inserti32x4(words, _mm_unpackhi_epi16(even_low, odd_low), 1);
  words = _mm512_inserti32x4(words, _mm_unpacklo_epi16(even_high, odd_high), 2);
  return _mm512_inserti32x4(words, _mm_unpackhi_epi16(even_high, odd_high), 3);
}

void pack(const uint8_t* const* rows, int8_t* left, int8_t* right) {
  for (int64_t half = 0; half < 2; ++half) {
    for (int64_t quad = 0; quad < tile_side; ++quad) {
      const __m512i words = words_of(rows + 4 * quad, half * tile_side);
      _mm512_storeu_si512(right + quad * tile_row_bytes, _mm512_xor_si512(words, _mm512_set1_epi8(-128)));  // - 128
    }
    transpose_tile(right, left);
    left += tile_block / 2;
    right += tile_block / 2;
  }
}

void multiply(const int8_t* left, const int8_t* right, int64_t blocks, int32_t* gram, int64_t ld) {
  const auto stride = static_cast<int64_t>(sizeof(int32_t)) * ld;
  _tile_loadd(0, gram, stride);
  _tile_loadd(1, gram + tile_side, stride);
  _tile_loadd(2, gram + tile_side * ld, stride);
  _tile_loadd(3, gram + tile_side * ld + tile_side, stride);
  for (int64_t block = 0; block < blocks; ++block) {
    _tile_loadd(4, left, tile_row_bytes);
    _tile_loadd(6, right, tile_row_bytes);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, right + tile_block / 2, tile_row_bytes);
    _tile_dpbssd(1, 4, 7);
    _tile_loadd(5, left + tile_block / 2, tile_row_bytes);
    _tile_dpbssd(2, 5, 6);
    _tile_dpbssd(3, 5, 7);
    left += tile_block;
    right += tile_block;
  }
  _tile_stored(0, gram, stride);
  _tile_stored(1, gram + tile_side, stride);
  _tile_stored(2, gram + tile_side * ld, stride);
  _tile_stored(3, gram + tile_side * ld + tile_side, stride);
}

}  // namespace

const ByteTiles& byte_tiles_amx() {
  static const ByteTiles tiles{.pack = pack, .begin = begin_tiles, .end = end_tiles, .multiply = multiply};
  return tiles;
}

}  // namespace krrdistill
