// Packing and products of slices for CPUs with AMX; the flags are in cmake/isa.cmake.
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "cpu/amx_tiles.h"
#include "cpu/slices.h"

namespace krrdistill {
namespace {

constexpr int64_t side = tile_side;

// The next slice of x, as 16 words of 16 bits; x keeps what is left.
__m256i take_slice(__m512& x) {
  const auto slice = (__m256i)_mm512_cvtneps_pbh(x);
  x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(slice), 16)));
  return slice;
}

__mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>((1U << std::clamp<int64_t>(count, 0, side)) - 1U);
}

// The pair of vectors that row `line` of a tile holds in words: 16 pairs along the vectors, or one of each.
template <bool along>
__m512i paired(__m256i first, __m256i second) {
  if constexpr (along) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
  }
  return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

// 16 neighbours of a row of a matrix (rows, columns); zeros outside of it.
__m512 loaded(const float* source, int64_t ld, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  return row < rows ? _mm512_maskz_loadu_ps(first_lanes(columns - column), source + row * ld + column)
                    : _mm512_setzero_ps();
}

// Exponents of the largest number of each index of a panel (32). along: the summed index is the contiguous one.
template <bool along>
void find_exponents(const float* source, int64_t ld, int64_t width, int64_t depth,
                    std::array<float, panel_width>& out) {
  const auto exponent = [](__m512 x) {  // within that of finite numbers: of 0, infinity and NaN, too
    return _mm512_min_ps(_mm512_max_ps(_mm512_getexp_ps(x), _mm512_set1_ps(-126.0F)), _mm512_set1_ps(127.0F));
  };
  for (int64_t index = 0; index < panel_width; index += along ? 1 : side) {
    __m512 largest = _mm512_setzero_ps();
    for (int64_t at = 0; at < depth; at += along ? side : 1) {
      const __m512 x =
          along ? loaded(source, ld, index, width, at, depth) : loaded(source, ld, at, depth, index, width);
      largest = _mm512_max_ps(largest, _mm512_abs_ps(x));
    }
    if constexpr (along) {
      out[index] = _mm512_cvtss_f32(exponent(_mm512_set1_ps(_mm512_reduce_max_ps(largest))));
    } else {
      _mm512_storeu_ps(&out[index], exponent(largest));
    }
  }
}

// Tiles as they lie in memory go to `natural`, their transposes to `turned`. A line of a tile has 32 neighbours in the
// summed index for one index, or two for 16 indices.
template <bool along>
int64_t pack_panel(const float* source, int64_t ld, int64_t width, int64_t depth, Panel natural, Panel turned,
                   double* units) {
  std::array<float, panel_width> exponents{};
  find_exponents<along>(source, ld, width, depth, exponents);
  for (int64_t index = 0; index < panel_width; ++index) {
    units[index] = std::ldexp(1.0, static_cast<int>(exponents[index]));
  }
  const int64_t blocks = (depth + block_depth - 1) / block_depth;
  const int64_t rows = along ? width : depth, columns = along ? depth : width;
  __m512i seen[slice_count] = {};  // NOLINT(modernize-avoid-c-arrays): std::array drops the alignment of vector types
  alignas(64) std::array<uint32_t, slice_count * tile_words> spare{};
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t tile = 0; tile < 2; ++tile) {
      const int64_t place = block * block_words + tile * tile_words, at = block * block_depth;
      std::array<uint32_t*, slice_count> out{};
      for (int64_t s = 0; s < slice_count; ++s) {
        out[s] =
            natural.words == nullptr ? spare.data() + s * tile_words : natural.words + s * natural.slice_stride + place;
      }
      for (int64_t line = 0; line < side; ++line) {
        const int64_t index = tile * side + (along ? line : 0), row = along ? index : at + 2 * line;
        const __m512 power = _mm512_sub_ps(
            _mm512_setzero_ps(), along ? _mm512_set1_ps(exponents[index]) : _mm512_loadu_ps(&exponents[index]));
        __m512 x = _mm512_scalef_ps(loaded(source, ld, row, rows, along ? at : index, columns), power);
        __m512 y = _mm512_scalef_ps(along ? loaded(source, ld, row, rows, at + side, columns)
                                          : loaded(source, ld, row + 1, rows, index, columns),
                                    power);
        for (int64_t s = 0; s < slice_count; ++s) {
          const __m512i words = paired<along>(take_slice(x), take_slice(y));
          seen[s] = _mm512_or_si512(seen[s], words);
          _mm512_storeu_si512(out[s] + line * side, words);
        }
      }
      for (int64_t s = 0; turned.words != nullptr && s < slice_count; ++s) {
        transpose_tile(out[s], turned.words + s * turned.slice_stride + place);
      }
    }
  }
  int64_t needed = slice_count;
  while (needed > 1 && _mm512_test_epi32_mask(seen[needed - 1], _mm512_set1_epi32(0x7fff7fff)) == 0) {
    --needed;
  }
  return needed;
}

int64_t pack(const float* source, int64_t index_stride, int64_t depth_stride, int64_t width, int64_t depth, Panel left,
             Panel right, double* units) {
  return depth_stride == 1 ? pack_panel<true>(source, index_stride, width, depth, left, right, units)
                           : pack_panel<false>(source, depth_stride, width, depth, right, left, units);
}

void add_products(const uint32_t* left, const uint32_t* right, int64_t blocks) {
  for (int64_t block = 0; block < blocks; ++block) {
    _tile_loadd(4, left, tile_row_bytes);
    _tile_loadd(6, right, tile_row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right + tile_words, tile_row_bytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, left + tile_words, tile_row_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    left += block_words;
    right += block_words;
  }
}

void multiply(Panel left, Panel right, int64_t blocks, int64_t left_slices, int64_t right_slices, double* sums) {
  alignas(64) std::array<float, panel_width * panel_width> found;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t order = slice_count - 1; order >= 0;
       --order) {  // the smallest first: they round while the sums are small
    for (int64_t i = 0; i < left_slices; ++i) {
      const int64_t j = order - i;
      if (j >= 0 && j < right_slices) {
        add_products(left.words + i * left.slice_stride, right.words + j * right.slice_stride, blocks);
      }
    }
  }
  constexpr int64_t stride = panel_width * sizeof(float);
  _tile_stored(0, found.data(), stride);
  _tile_stored(1, found.data() + side, stride);
  _tile_stored(2, found.data() + side * panel_width, stride);
  _tile_stored(3, found.data() + side * panel_width + side, stride);
  for (int64_t i = 0; i < panel_width * panel_width; i += 8) {
    _mm512_storeu_pd(sums + i, _mm512_add_pd(_mm512_loadu_pd(sums + i), _mm512_cvtps_pd(_mm256_load_ps(&found[i]))));
  }
}

}  // namespace

const SliceKernels& slice_kernels_amx() {
  static const SliceKernels kernels{.pack = pack, .begin = begin_tiles, .end = end_tiles, .multiply = multiply};
  return kernels;
}

}  // namespace krrdistill
