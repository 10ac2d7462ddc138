// What the kernels for AMX share; for their translation units alone. Everything has internal linkage.
#pragma once

// GCC's own headers begin with a variable that stands for no value (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <array>
#include <cstdint>

namespace krrdistill {
namespace {

constexpr int64_t tile_side = 16;  // rows of a tile, and words of 32 bits in each
constexpr int64_t tile_words = tile_side * tile_side;
constexpr int64_t tile_row_bytes = 64;

// Eight tiles of 16 rows of 64 bytes. Static: GCC takes no notice that the instruction reads all of it.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  std::array<uint8_t, 14> reserved{};
  std::array<uint16_t, 16> bytes{64, 64, 64, 64, 64, 64, 64, 64};
  std::array<uint8_t, 16> rows{16, 16, 16, 16, 16, 16, 16, 16};
};
const TileShapes tile_shapes;

void begin_tiles() { _tile_loadconfig(&tile_shapes); }
void end_tiles() { _tile_release(); }

void transpose_tile(const void* tile, void* out) {
  const __m512i column =
      _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(16));
  for (int64_t i = 0; i < tile_side; ++i) {
    _mm512_storeu_si512(static_cast<uint32_t*>(out) + i * tile_side,
                        _mm512_i32gather_epi32(column, static_cast<const uint32_t*>(tile) + i, 4));
  }
}

}  // namespace
}  // namespace krrdistill
