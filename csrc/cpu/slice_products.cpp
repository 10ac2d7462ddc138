// Packs matrices into panels of slices and splits their product into blocks and threads; the kernels are in
// slices_amx.cpp.
#include "cpu/slice_products.h"

#include <algorithm>
#include <memory>

#include "common/checked_size.h"
#include "common/threads.h"
#include "cpu/slices.h"
#include "krrdistill/isa.h"

namespace krrdistill {
namespace {

constexpr int64_t syrk_rows = 2048;   // that are packed at a time
constexpr int64_t chunk_blocks = 16;  // of depth 32, whose sums are in float32
constexpr int64_t area_panels =
    4;  // a thread multiplies 4 x 4 panels: 8 of a chunk are 768 KiB, which fits an L2 cache
constexpr int64_t area_sums = area_panels * area_panels * panel_width * panel_width;
constexpr int64_t least_side = 64;
constexpr double least_operations = 1 << 22;

int64_t panels_of(int64_t width) { return (width + panel_width - 1) / panel_width; }
int64_t blocks_of(int64_t depth) { return (depth + block_depth - 1) / block_depth; }

const SliceKernels* slice_kernels() {
#ifdef KRRDISTILL_WITH_AMX
  if (current_isa() == Isa::amx) {
    return &slice_kernels_amx();
  }
#endif
  return nullptr;
}

// A matrix in panels, for one side of a product.
struct Packed {
  uint32_t* words = nullptr;
  int64_t panels = 0;
  int64_t blocks = 0;
  int64_t slices = slice_count;   // that are not zero
  const double* units = nullptr;  // of each index, what its numbers were divided by

  static int64_t size(int64_t width, int64_t depth) {
    return checked_product(checked_product(panels_of(width), slice_count * block_words), blocks_of(depth));
  }
  [[nodiscard]] Panel panel(int64_t number, int64_t first_block = 0) const {
    const int64_t stride = blocks * block_words;
    return {.words = words == nullptr ? nullptr : words + number * slice_count * stride + first_block * block_words,
            .slice_stride = stride};
  }
};

// Cuts the caller's workspace: first what needs the alignment of doubles.
class Space {
 public:
  static int64_t size(int64_t left_width, int64_t right_width, int64_t words) {
    const int64_t units = checked_product(checked_sum(panels_of(left_width), panels_of(right_width)), panel_width);
    return checked_sum(checked_product(2, checked_sum(area_sums * max_threads(), units)), words, alignment);
  }

  explicit Space(void* workspace) {
    size_t room = 2 * alignment;
    next_ = static_cast<double*>(std::align(alignment, 1, workspace, room));
  }
  double* doubles(int64_t count) {
    double* taken = next_;
    next_ += count;
    return taken;
  }
  uint32_t* words() { return reinterpret_cast<uint32_t*>(next_); }

 private:
  static constexpr int64_t alignment = 64;  // bytes

  double* next_ = nullptr;
};

// source[index * index_stride + depth * depth_stride] into panels for either side, which may have none.
void pack(const SliceKernels& kernels, const float* source, int64_t index_stride, int64_t depth_stride, int64_t width,
          int64_t depth, Packed& left, Packed& right, double* units) {
  int64_t needed = 1;
#pragma omp parallel for schedule(static) reduction(max : needed)
  for (int64_t panel = 0; panel < panels_of(width); ++panel) {
    const int64_t first = panel * panel_width;
    const int64_t found =
        kernels.pack(source + first * index_stride, index_stride, depth_stride, std::min(panel_width, width - first),
                     depth, left.panel(panel), right.panel(panel), units + first);
    needed = std::max(needed, found);
  }
  left.slices = right.slices = needed;
  left.units = right.units = units;
}

// Panels i in [first_i, last_i) times j in [first_j, last_j), those with j <= i of a triangle.
struct Area {
  int64_t first_i, last_i, first_j, last_j;
  bool triangle;
  double* sums;  // area_sums

  [[nodiscard]] double* of(int64_t i, int64_t j) const {
    return sums + ((i - first_i) * area_panels + j - first_j) * panel_width * panel_width;
  }
  template <typename Visit>
  void each(Visit visit) const {
    for (int64_t i = first_i; i < last_i; ++i) {
      for (int64_t j = first_j; j < (triangle ? std::min(last_j, i + 1) : last_j); ++j) {
        visit(i, j, of(i, j));
      }
    }
  }
};

void multiply_area(const SliceKernels& kernels, const Packed& left, const Packed& right, const Area& area) {
  std::fill_n(area.sums, area_sums, 0.0);
  kernels.begin();
  for (int64_t block = 0; block < left.blocks; block += chunk_blocks) {
    const int64_t count = std::min(chunk_blocks, left.blocks - block);
    area.each([&](int64_t i, int64_t j, double* sums) {
      kernels.multiply(left.panel(i, block), right.panel(j, block), count, left.slices, right.slices, sums);
    });
  }
  kernels.end();
}

// take(row, column, value) for every entry (rows, columns) of the product, or, of a triangle, of the panels that it
// touches. `memory`: area_sums for every thread.
template <typename Take>
void multiply(const SliceKernels& kernels, const Packed& left, const Packed& right, int64_t rows, int64_t columns,
              bool triangle, double* memory, Take take) {
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t ib = 0; ib < left.panels; ib += area_panels) {
    for (int64_t jb = 0; jb < right.panels; jb += area_panels) {
      if (triangle && jb > ib) {
        continue;
      }
      const Area area{.first_i = ib,
                      .last_i = std::min(ib + area_panels, left.panels),
                      .first_j = jb,
                      .last_j = std::min(jb + area_panels, right.panels),
                      .triangle = triangle,
                      .sums = memory + thread_number() * area_sums};
      multiply_area(kernels, left, right, area);
      area.each([&](int64_t i, int64_t j, const double* sums) {
        const int64_t column = j * panel_width, last = std::min(column + panel_width, columns);
        for (int64_t a = i * panel_width; a < std::min((i + 1) * panel_width, rows); ++a, sums += panel_width) {
          for (int64_t b = column; b < last; ++b) {
            take(a, b, left.units[a] * right.units[b] * sums[b - column]);
          }
        }
      });
    }
  }
}

}  // namespace

bool slices_pay(int64_t m, int64_t n, int64_t depth) {
  const double operations = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(depth);
  return slice_kernels() != nullptr && std::min({m, n, depth}) >= least_side && operations >= least_operations;
}

int64_t slice_syrk_workspace(int64_t rows, int64_t p) {
  return Space::size(p, 0, checked_product(2, Packed::size(p, std::min(rows, syrk_rows))));
}

int64_t slice_gemm_workspace(int64_t rows, int64_t outputs, int64_t inputs) {
  return Space::size(rows, outputs, checked_sum(Packed::size(rows, inputs), Packed::size(outputs, inputs)));
}

void slice_syrk(const float* X, int64_t rows, int64_t p, double* gram, float* workspace) {
  const SliceKernels& kernels = *slice_kernels();
  Space space(workspace);
  double* sums = space.doubles(area_sums * max_threads());
  double* units = space.doubles(panels_of(p) * panel_width);
  for (int64_t first = 0; first < rows; first += syrk_rows) {
    const int64_t count = std::min(syrk_rows, rows - first);
    Packed left{.words = space.words(), .panels = panels_of(p), .blocks = blocks_of(count)};
    Packed right = left;
    right.words += Packed::size(p, count);
    pack(kernels, X + first * p, 1, p, p, count, left, right, units);
    multiply(kernels, left, right, p, p, true, sums,
             [&](int64_t i, int64_t j, double value) { gram[i * p + j] += value; });
  }
}

void slice_gemm(const float* X, const float* W, int64_t ld, int64_t rows, int64_t outputs, int64_t inputs, float* out,
                float* workspace) {
  const SliceKernels& kernels = *slice_kernels();
  Space space(workspace);
  double* sums = space.doubles(area_sums * max_threads());
  double* row_units = space.doubles(panels_of(rows) * panel_width);
  double* output_units = space.doubles(panels_of(outputs) * panel_width);
  Packed none;
  Packed left{.words = space.words(), .panels = panels_of(rows), .blocks = blocks_of(inputs)};
  Packed right{
      .words = space.words() + Packed::size(rows, inputs), .panels = panels_of(outputs), .blocks = blocks_of(inputs)};
  pack(kernels, X, inputs, 1, rows, inputs, left, none, row_units);
  pack(kernels, W, ld, 1, outputs, inputs, none, right, output_units);
  multiply(kernels, left, right, rows, outputs, false, sums,
           [&](int64_t i, int64_t j, double value) { out[i * outputs + j] = static_cast<float>(value); });
}

}  // namespace krrdistill
