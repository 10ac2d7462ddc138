// Packs rows of bytes into panels and splits their product into blocks and threads; the kernels are in
// byte_gram_impl.h and byte_gram_amx.cpp.
#include "cpu/byte_gram.h"

#include <algorithm>
#include <array>
#include <memory>

#include "common/checked_size.h"
#include "cpu/byte_gram_kernels.h"
#include "krrdistill/isa.h"
#include "krrdistill/statistics.h"

namespace krrdistill {
namespace {

constexpr int64_t block_panels = 6;  // 96 columns: two packed blocks take 384 KiB, which fits an L2 cache of 512 KiB
constexpr int64_t line_panels = 4;   // 64 bytes of a row
constexpr int64_t block_rows = 1024;
constexpr int64_t tile_panels = 4;         // 128 columns of tiles: two packed blocks take 1 MiB
constexpr int64_t tile_block_rows = 4096;  // a sum in tiles is loaded and stored once per block
constexpr int64_t alignment = 64;          // bytes, of tiles

// Null where there are none.
const ByteTiles* byte_tiles() {
#ifdef KRRDISTILL_WITH_AMX
  if (current_isa() == Isa::amx) {
    return &byte_tiles_amx();
  }
#endif
  return nullptr;
}

// Null where no integer kernel is known to be faster than a float32 product: not timed on AVX-512 without VNNI.
ByteGramKernel byte_gram_kernel() {
#ifdef KRRDISTILL_WITH_AVX512VNNI
  if (current_isa() == Isa::avx512 && __builtin_cpu_supports("avx512vnni")) {
    return &byte_gram_avx512vnni;
  }
#endif
#ifdef KRRDISTILL_WITH_AVX2
  if (current_isa() == Isa::avx2) {
    return &byte_gram_avx2;
  }
#endif
  return nullptr;
}

// A pair of rows of one panel: (even[c] - 128, odd[c] - 128) for 16 columns.
void interleave(const uint8_t* even, const uint8_t* odd, int16_t* words) {
  for (int64_t c = 0; c < panel_columns; ++c) {
    words[2 * c] = static_cast<int16_t>(even[c] - byte_centre);
    words[2 * c + 1] = static_cast<int16_t>(odd[c] - byte_centre);
  }
}

// 16 bytes of row i; 128, which is zero once centred, beyond the last row or column.
const uint8_t* panel_bytes(const Input& input, int64_t i, int64_t end, int64_t column, int64_t p,
                           std::array<uint8_t, panel_columns>& spare) {
  if (i < end && column + panel_columns <= p) {
    return input_bytes(input, i) + column;
  }
  spare.fill(byte_centre);
  if (i < end) {
    const uint8_t* row = input_bytes(input, i);
    std::copy(row + column, row + p, spare.begin());
  }
  return spare.data();
}

// Panels [first_panel, last_panel) of rows [first, first + count), filled up to whole panels and pairs.
void pack(const Input& input, int64_t first, int64_t count, int64_t p, int64_t first_panel, int64_t last_panel,
          int16_t* packed) {
  const int64_t pairs = (count + 1) / 2, end = first + count;
  std::array<uint8_t, panel_columns> spare_even{}, spare_odd{};
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const int64_t i = first + 2 * pair;
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      const int64_t column = panel * panel_columns;
      interleave(panel_bytes(input, i, end, column, p, spare_even),
                 panel_bytes(input, i + 1, end, column, p, spare_odd),
                 packed + 2 * panel_columns * (panel * pairs + pair));
    }
  }
}

// Panel `panel` of 32 columns of rows [first, first + count), filled up to whole blocks.
void pack_tiles(const ByteTiles& tiles, const Input& input, int64_t first, int64_t count, int64_t p, int64_t panel,
                int8_t* left, int8_t* right) {
  const int64_t column = panel * tile_columns, end = first + count, width = std::min(tile_columns, p - column);
  std::array<const uint8_t*, tile_rows> rows{};
  std::array<std::array<uint8_t, tile_columns>, tile_rows> spare{};
  for (int64_t start = first; start < end; start += tile_rows) {
    for (int64_t row = 0; row < tile_rows; ++row) {
      const int64_t i = start + row;
      if (i < end && width == tile_columns) {
        rows[row] = input_bytes(input, i) + column;
        continue;
      }
      spare[row].fill(byte_centre);
      if (i < end) {
        std::copy_n(input_bytes(input, i) + column, width, spare[row].begin());
      }
      rows[row] = spare[row].data();
    }
    tiles.pack(rows.data(), left, right);
    left += tile_block;
    right += tile_block;
  }
}

void tile_gram(const ByteTiles& tiles, const Input& input, int64_t first, int64_t count, int64_t p, int32_t* gram,
               void* workspace) {
  const int64_t order = byte_gram_order(p), panels = order / tile_columns;
  const int64_t blocks = (count + tile_rows - 1) / tile_rows, panel_size = blocks * tile_block;
  size_t room = 2 * alignment;
  auto* left = static_cast<int8_t*>(std::align(alignment, 1, workspace, room));
  int8_t* right = left + panels * panel_size;
#pragma omp parallel for schedule(static)
  for (int64_t panel = 0; panel < panels; ++panel) {
    pack_tiles(tiles, input, first, count, p, panel, left + panel * panel_size, right + panel * panel_size);
  }
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t ib = 0; ib < panels; ib += tile_panels) {
    for (int64_t jb = 0; jb < panels; jb += tile_panels) {
      tiles.begin();
      for (int64_t i = std::max(ib, jb); i < std::min(ib + tile_panels, panels); ++i) {
        for (int64_t j = jb; j < std::min({jb + tile_panels, panels, i + 1}); ++j) {
          tiles.multiply(left + i * panel_size, right + j * panel_size, blocks, gram + (i * order + j) * tile_columns,
                         order);
        }
      }
      tiles.end();
    }
  }
}

}  // namespace

bool has_byte_products() { return byte_tiles() != nullptr || byte_gram_kernel() != nullptr; }

int64_t byte_block_rows() { return byte_tiles() != nullptr ? tile_block_rows : block_rows; }

int64_t byte_gram_order(int64_t p) {
  const int64_t columns = byte_tiles() != nullptr ? tile_columns : panel_columns;
  return checked_sum(p, columns - 1) / columns * columns;
}

// int16 once, or int8 twice.
int64_t byte_gram_workspace(int64_t p) {
  return checked_sum(checked_product(byte_block_rows(), byte_gram_order(p)) / 4, alignment / 8);
}

void byte_gram(const Input& input, int64_t first, int64_t count, int64_t p, int32_t* gram, double* workspace) {
  if (const ByteTiles* tiles = byte_tiles()) {
    tile_gram(*tiles, input, first, count, p, gram, workspace);
    return;
  }
  const ByteGramKernel kernel = byte_gram_kernel();
  auto* packed = reinterpret_cast<int16_t*>(workspace);
  const int64_t order = byte_gram_order(p), panels = order / panel_columns;
  const int64_t pairs = (count + 1) / 2;
  const int64_t panel_size = 2 * panel_columns * pairs;
#pragma omp parallel for schedule(static)
  for (int64_t panel = 0; panel < panels; panel += line_panels) {
    pack(input, first, count, p, panel, std::min(panel + line_panels, panels), packed);
  }
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t ib = 0; ib < panels; ib += block_panels) {
    for (int64_t jb = 0; jb < panels; jb += block_panels) {
      for (int64_t j = jb; j < std::min(jb + block_panels, panels); ++j) {
        for (int64_t i = std::max(ib, j); i < std::min(ib + block_panels, panels); ++i) {
          kernel(packed + i * panel_size, packed + j * panel_size, pairs, gram + (i * order + j) * panel_columns,
                 order);
        }
      }
    }
  }
}

}  // namespace krrdistill
