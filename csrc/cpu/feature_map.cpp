// phi(x) of one tile: load and standardise, then per layer one GEMM, or the rounds of a structured weight, and one
// in-place epilogue.
#include "krrdistill/feature_map.h"

#include <algorithm>
#include <type_traits>

#include "common/checked_blas.h"
#include "common/checked_size.h"
#include "cpu/slice_products.h"
#include "krrdistill/elementwise.h"
#include "krrdistill/errors.h"

namespace krrdistill {
namespace {

// x * scale + shift in T, for bytes.
template <typename T>
struct Rounded {
  const T* scale;
  const T* shift;
};

template <typename T>
int64_t rounded_workspace(const FeatureMap<T>& map) {
  return std::is_same_v<T, double> || map.scale == nullptr ? 0 : checked_product(2, map.input_dim);
}

template <typename T>
Rounded<T> round_factors(const FeatureMap<T>& map, T* workspace) {
  if constexpr (std::is_same_v<T, double>) {
    return {.scale = map.scale, .shift = map.shift};
  } else {
    if (map.scale == nullptr) {
      return {.scale = nullptr, .shift = nullptr};
    }
    const int64_t d = map.input_dim;
    const auto round = [](double value) { return static_cast<T>(value); };
    std::transform(map.scale, map.scale + d, workspace, round);
    std::transform(map.shift, map.shift + d, workspace + d, round);
    return {.scale = workspace, .shift = workspace + d};
  }
}

template <typename T>
void load_tile(const FeatureMap<T>& map, const Input& input, int64_t first, int64_t count, T* out, T* workspace) {
  const auto& kernels = elementwise<T>();
  const int64_t d = map.input_dim;
  const Rounded<T> rounded = round_factors(map, workspace);
  int64_t first_bad = count;
#pragma omp parallel for schedule(static) reduction(min : first_bad)
  for (int64_t i = 0; i < count; ++i) {
    const int64_t offset = input.row_of(first + i) * input.row_stride;
    bool finite = true;
    switch (input.type) {
      case InputType::u8:
        finite = kernels.load_u8(static_cast<const uint8_t*>(input.data) + offset, rounded.scale, rounded.shift,
                                 out + i * d, d);
        break;
      case InputType::f32:
        finite = kernels.load_f32(static_cast<const float*>(input.data) + offset, map.scale, map.shift, out + i * d, d);
        break;
      case InputType::f64:
        finite =
            kernels.load_f64(static_cast<const double*>(input.data) + offset, map.scale, map.shift, out + i * d, d);
        break;
      case InputType::f16:
        finite =
            kernels.load_f16(static_cast<const Float16*>(input.data) + offset, map.scale, map.shift, out + i * d, d);
        break;
      case InputType::bf16:
        finite =
            kernels.load_bf16(static_cast<const BFloat16*>(input.data) + offset, map.scale, map.shift, out + i * d, d);
        break;
    }
    if (!finite) {
      first_bad = std::min(first_bad, i);
    }
  }
  if (first_bad < count) {
    throw NonFinite(input.row_of(first + first_bad));
  }
}

template <typename T>
void apply_activation(const Layer<T>& layer, T* row) {
  const auto& kernels = elementwise<T>();
  switch (layer.activation) {
    case Activation::linear:
      kernels.add_bias(row, layer.bias, layer.outputs);
      break;
    case Activation::leaky_relu:
      kernels.leaky_relu(row, layer.bias, layer.parameter, layer.outputs);
      break;
    case Activation::cosine:
      kernels.scaled_cos(row, layer.bias, layer.parameter, layer.outputs);
      break;
  }
}

// features = H W^T, row-major.
template <typename T>
void multiply_dense(const Layer<T>& layer, const T* inputs, int64_t count, T* features, T* workspace) {
  if constexpr (std::is_same_v<T, float>) {
    if (slices_pay(count, layer.outputs, layer.inputs)) {
      slice_gemm(inputs, layer.weight, layer.ld, count, layer.outputs, layer.inputs, features, workspace);
      return;
    }
  }
  // Column-major sees (outputs, count) = W^T-transposed times H.
  gemm<T>('T', 'N', layer.outputs, count, layer.inputs, T(1), layer.weight, layer.ld, inputs, layer.inputs, T(0),
          features, layer.outputs);
}

template <typename T>
void apply_dense(const Layer<T>& layer, const T* inputs, int64_t count, T* features, T* workspace) {
  multiply_dense(layer, inputs, count, features, workspace);
  if (layer.activation == Activation::linear && layer.bias == nullptr) {
    return;
  }
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    apply_activation(layer, features + i * layer.outputs);
  }
}

// Overwrites the inputs.
template <typename T>
void apply_structured(const Layer<T>& layer, T* inputs, int64_t count, T* features) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count; ++i) {
    hadamard_apply(layer.hadamard, inputs + i * layer.inputs, features + i * layer.outputs);
    apply_activation(layer, features + i * layer.outputs);
  }
}

}  // namespace

template <typename T>
int64_t tile_workspace(const FeatureMap<T>& map, int64_t tile_rows) {
  const int64_t buffers = map.layers.empty() ? 0 : checked_product(checked_product(2, map.max_width()), tile_rows);
  int64_t products = 0;
  if constexpr (std::is_same_v<T, float>) {
    for (const auto& layer : map.layers) {
      if (layer.weight != nullptr && slices_pay(tile_rows, layer.outputs, layer.inputs)) {
        products = std::max(products, slice_gemm_workspace(tile_rows, layer.outputs, layer.inputs));
      }
    }
  }
  return checked_sum(rounded_workspace(map), buffers, products);
}

template <typename T>
void transform_tile(const FeatureMap<T>& map, const Input& input, int64_t first, int64_t count, T* out, T* workspace) {
  if (count == 0) {
    return;
  }
  if (map.layers.empty()) {
    load_tile(map, input, first, count, out, workspace);
    return;
  }
  T* current = workspace + rounded_workspace(map);
  T* next = current + count * map.max_width();
  T* products = next + count * map.max_width();
  load_tile(map, input, first, count, current, workspace);
  for (const auto& layer : map.layers) {
    T* target = &layer == &map.layers.back() ? out : next;
    if (layer.weight != nullptr) {
      apply_dense(layer, current, count, target, products);
    } else {
      apply_structured(layer, current, count, target);
    }
    next = current;
    current = target;
  }
}

template int64_t tile_workspace(const FeatureMap<float>&, int64_t);
template int64_t tile_workspace(const FeatureMap<double>&, int64_t);
template void transform_tile(const FeatureMap<float>&, const Input&, int64_t, int64_t, float*, float*);
template void transform_tile(const FeatureMap<double>&, const Input&, int64_t, int64_t, double*, double*);

}  // namespace krrdistill
