// Feature maps as a chain of layers:  h_0 = x * scale + shift,  h_l = act_l(W_l h_{l-1} + b_l).
// identity: no layer. Fourier features: one layer with cosine. FCNN: layers with LeakyReLU.
// ZCA whitening: a leading linear layer with a bias.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "krrdistill/hadamard.h"

namespace krrdistill {

enum class Activation : int { linear = 0, leaky_relu = 1, cosine = 2 };

// Row-major weights (outputs, inputs), row stride ld. `parameter`: LeakyReLU's slope, or the cosine's scale.
template <typename T>
struct Layer {
  const T* weight = nullptr;  // null: `hadamard` is the weight
  int64_t ld = 0;
  int64_t outputs = 0;
  int64_t inputs = 0;
  const T* bias = nullptr;  // (outputs) or null
  Activation activation = Activation::linear;
  T parameter = 1;
  Hadamard<T> hadamard;
};

template <typename T>
struct FeatureMap {
  int64_t input_dim = 0;
  const double* scale = nullptr;  // (input_dim), null: no affine stage. Floats are standardised in double, which an
  const double* shift = nullptr;  // offset that is large beside the spread needs; bytes with both rounded to T
  std::vector<Layer<T>> layers;

  [[nodiscard]] int64_t output_dim() const { return layers.empty() ? input_dim : layers.back().outputs; }
  [[nodiscard]] int64_t max_width() const {
    int64_t width = input_dim;
    for (const auto& layer : layers) {
      width = std::max(width, layer.outputs);
    }
    return width;
  }
};

enum class InputType { u8, f32, f64, f16, bf16 };

constexpr int64_t element_bytes(InputType type) {
  switch (type) {
    case InputType::u8:
      return 1;
    case InputType::f16:
    case InputType::bf16:
      return 2;
    case InputType::f32:
      return 4;
    default:
      return 8;
  }
}

constexpr bool is_half(InputType type) { return type == InputType::f16 || type == InputType::bf16; }

// n rows of input_dim contiguous elements in the caller's memory; row i of the batch is row
// rows[i] of the memory when `rows` is given (a split needs no copy of the data).
struct Input {
  const void* data = nullptr;
  InputType type = InputType::f64;
  int64_t row_stride = 0;
  const int64_t* rows = nullptr;
  int64_t n = 0;

  [[nodiscard]] int64_t row_of(int64_t i) const { return rows == nullptr ? i : rows[i]; }
};

// Elements of workspace that transform_tile needs for `tile_rows` rows. Throws std::length_error where that does not
// fit 64 bits.
template <typename T>
int64_t tile_workspace(const FeatureMap<T>& map, int64_t tile_rows);

// Features of input rows [first, first + count) into `out`, row-major (count, output_dim), contiguous.
// Throws NonFinite with the row's index in the batch.
template <typename T>
void transform_tile(const FeatureMap<T>& map, const Input& input, int64_t first, int64_t count, T* out, T* workspace);

}  // namespace krrdistill
