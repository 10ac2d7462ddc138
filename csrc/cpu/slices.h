// Floats as sums of three bfloat16 of 8 bits each, x = x0 + x1 + x2, whose products a matrix unit forms with float32
// sums. Only slices_amx.cpp knows its instructions.
#pragma once

#include <cstdint>

namespace krrdistill {

constexpr int64_t slice_count = 3;
constexpr int64_t panel_width = 32;   // indices of one panel: two tiles of 16
constexpr int64_t block_depth = 32;   // of the summed index
constexpr int64_t block_words = 512;  // of 32 bits, each a pair of neighbours in the summed index

// One panel: for every slice its blocks, each two tiles. In a left tile index is the row and pair the column, in a
// right tile the other way round: the sum over pairs of left (16 x pairs) and right (pairs x 16).
struct Panel {
  uint32_t* words;
  int64_t slice_stride;
};

struct SliceKernels {
  // Slices of floats at source[index * index_stride + depth * depth_stride], one of the strides 1; zeros beyond `width`
  // indices and `depth`. The numbers of an index are divided by units[index] (32), the power of 2 that is under the
  // largest, because the unit takes numbers under 2^-126 for 0. `left` and `right` may be null. Returns how many slices
  // are not zero, at least 1.
  int64_t (*pack)(const float* source, int64_t index_stride, int64_t depth_stride, int64_t width, int64_t depth,
                  Panel left, Panel right, double* units);
  void (*begin)();  // before and after the products of a thread
  void (*end)();
  // sums (32 x 32) += the products of `blocks` blocks of two panels, without those of slices i + j > 2.
  void (*multiply)(Panel left, Panel right, int64_t blocks, int64_t left_slices, int64_t right_slices, double* sums);
};

const SliceKernels& slice_kernels_amx();

}  // namespace krrdistill
