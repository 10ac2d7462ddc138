// Packing and products of slices for CPUs with AMX; the flags are in cmake/isa.cmake.
#include "cpu/slices.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "cpu/amx_tiles.h"

namespace krrdistill {
namespace {

constexpr int64_t side = tile_side;

// The next slice of x, as 16 words of 16 bits; x keeps what is left.
__m256i take_slice(__m512& x) {
  const auto slice = std::bit_cast<__m256i>(_mm512_cvtneps_pbh(x));
  x = _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(slice), 16)));
  return slice;
}

__mmask16 first_lanes(int64_t count) {
  return static_cast<__mmask16>((1U << static_cast<unsigned int>(std::clamp<int64_t>(count, 0, side))) - 1U);
}

// The pair of vectors that row `line` of a tile holds in words: 16 pairs along the vectors, or one of each.
template <bool Along>
__m512i paired(__m256i first, __m256i second) {
  if constexpr (Along) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
  }
  return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

// The numbers of a panel. Along: the summed index is the contiguous one.
template <bool Along>
struct Source {
  const float* numbers;
  int64_t ld;
  int64_t width;
  int64_t depth;

  // 16 neighbours in memory from (index, depth) on, zeros outside.
  [[nodiscard]] __m512 at(int64_t index, int64_t place) const {
    if (index >= width || place >= depth) {
      return _mm512_setzero_ps();
    }
    return Along ? _mm512_maskz_loadu_ps(first_lanes(depth - place), numbers + index * ld + place)
                 : _mm512_maskz_loadu_ps(first_lanes(width - index), numbers + place * ld + index);
  }
};

// Within the exponents of finite numbers: of 0, infinity and NaN, too.
__m512 exponent(__m512 x) {
  return _mm512_min_ps(_mm512_max_ps(_mm512_getexp_ps(x), _mm512_set1_ps(-126.0F)), _mm512_set1_ps(127.0F));
}

// Of the largest number of each index of a panel.
template <bool Along>
std::array<float, panel_width> find_exponents(const Source<Along>& source) {
  std::array<float, panel_width> found{};
  for (int64_t index = 0; index < panel_width; index += Along ? 1 : side) {
    __m512 largest = _mm512_setzero_ps();
    for (int64_t place = 0; place < source.depth; place += Along ? side : 1) {
      largest = _mm512_max_ps(largest, _mm512_abs_ps(source.at(index, place)));
    }
    if constexpr (Along) {
      found[index] = _mm512_cvtss_f32(exponent(_mm512_set1_ps(_mm512_reduce_max_ps(largest))));
    } else {
      _mm512_storeu_ps(&found[index], exponent(largest));
    }
  }
  return found;
}

// The slices of a tile that begins at (index, place). A line of it has 32 neighbours in the summed index for one index,
// or two of them for 16 indices. `seen` collects the bits of each slice.
template <bool Along>
void pack_tile(const Source<Along>& source, const std::array<float, panel_width>& exponents, int64_t index,
               int64_t place, const std::array<uint32_t*, slice_count>& out, __m512i* seen) {
  for (int64_t line = 0; line < side; ++line) {
    const int64_t own = Along ? index + line : index, first = Along ? place : place + 2 * line;
    const __m512 power =
        Along ? _mm512_set1_ps(-exponents[own]) : _mm512_sub_ps(_mm512_setzero_ps(), _mm512_loadu_ps(&exponents[own]));
    __m512 x = _mm512_scalef_ps(source.at(own, first), power);
    __m512 y = _mm512_scalef_ps(source.at(own, first + (Along ? side : 1)), power);
    for (int64_t s = 0; s < slice_count; ++s) {
      const __m512i words = paired<Along>(take_slice(x), take_slice(y));
      seen[s] = _mm512_or_si512(seen[s], words);
      _mm512_storeu_si512(out[s] + line * side, words);
    }
  }
}

// Tiles as they lie in memory go to `natural`, their transposes to `turned`.
template <bool Along>
int64_t pack_panel(const Source<Along>& source, Panel natural, Panel turned, double* units) {
  const std::array<float, panel_width> exponents = find_exponents(source);
  std::transform(exponents.begin(), exponents.end(), units,
                 [](float power) { return std::ldexp(1.0, static_cast<int>(power)); });
  __m512i seen[slice_count] = {};  // NOLINT(modernize-avoid-c-arrays): std::array drops the alignment of vector types
  alignas(64) std::array<uint32_t, slice_count * tile_words> spare{};
  int64_t to = 0;
  for (int64_t place = 0; place < source.depth; place += block_depth) {
    for (int64_t index = 0; index < panel_width; index += side) {
      std::array<uint32_t*, slice_count> out{};
      for (int64_t s = 0; s < slice_count; ++s) {
        out[s] =
            natural.words == nullptr ? spare.data() + s * tile_words : natural.words + s * natural.slice_stride + to;
      }
      pack_tile(source, exponents, index, place, out, seen);
      for (int64_t s = 0; turned.words != nullptr && s < slice_count; ++s) {
        transpose_tile(out[s], turned.words + s * turned.slice_stride + to);
      }
      to += tile_words;
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
  if (depth_stride == 1) {
    return pack_panel<true>({.numbers = source, .ld = index_stride, .width = width, .depth = depth}, left, right,
                            units);
  }
  return pack_panel<false>({.numbers = source, .ld = depth_stride, .width = width, .depth = depth}, right, left, units);
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
  alignas(64) std::array<float, panel_width * panel_width> found{};
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
