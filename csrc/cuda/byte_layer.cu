#include "cuda/byte_layer.h"

#include <cmath>

#include "cuda/products.h"
#include "cuda/shared.h"
#include "cuda/slices.h"
#include "cuda/vectors.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 256;
constexpr double centre = 128.0;
constexpr double largest_centre = 8.0;  // of 128 a, where standardised inputs are about 1 (docs/explanation/numerics.md)

// The slices, units and constants of the rows of W; a block has one row. Rows and columns beyond W are zero.
__global__ void __launch_bounds__(threads)
    slice_weights_kernel(Layer<float> layer, const double* scale, const double* shift, int64_t order, int64_t ld,
                         int8_t* slices, double* unit, double* constant) {
  auto* largest = shared_memory<double>();  // (threads), and as many sums
  double* sums = largest + threads;
  const int64_t r = blockIdx.x;
  const bool inside = r < layer.outputs;
  const float* row = layer.weight + r * layer.ld;
  const auto factor = [scale](int64_t j) { return scale == nullptr ? 1.0 : scale[j]; };
  double most = 0.0, sum = 0.0;
  for (int64_t j = threadIdx.x; inside && j < layer.inputs; j += threads) {
    const double a = factor(j), w = row[j];
    most = fmax(most, fabs(w * a));
    sum += w * ((shift == nullptr ? 0.0 : shift[j]) + centre * a);
  }
  largest[threadIdx.x] = most;
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (unsigned half = threads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) {
      largest[threadIdx.x] = fmax(largest[threadIdx.x], largest[threadIdx.x + half]);
      sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    __syncthreads();
  }
  const int exponent = slice_exponent(largest[0]);
  if (threadIdx.x == 0) {
    unit[r] = ldexp(1.0, exponent - slice_bits);
    constant[r] = inside ? sums[0] + (layer.bias == nullptr ? 0.0 : layer.bias[r]) : 0.0;
  }
  const double inverse = ldexp(1.0, slice_bits - exponent);
#pragma unroll 1  // unrolled it spills where registers are fewest
  for (int64_t j = threadIdx.x; j < ld; j += threads) {
    const int value = inside && j < layer.inputs ? __double2int_rn(row[j] * factor(j) * inverse) : 0;
    const Slices parts = slices_of(value);
    slices[r * ld + j] = parts.high;
    slices[(order + r) * ld + j] = parts.middle;
    slices[(2 * order + r) * ld + j] = parts.low;
  }
}

// u - 128 as int8, in place.
__global__ void __launch_bounds__(threads) centre_kernel(std::byte* bytes, unsigned packs) {
  const unsigned index = flat_index();
  if (index < packs) {
    auto* value = reinterpret_cast<Pack<uint32_t, 4>*>(bytes) + index;
    auto centred = *value;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      centred.v[j] ^= 0x80808080U;
    }
    *value = centred;
  }
}

template <Activation activation>
__global__ void __launch_bounds__(threads)
    byte_epilogue_kernel(const int32_t* products, int64_t order, const double* unit, const double* constant,
                         float parameter, float* out, unsigned packs, unsigned total) {
  const unsigned index = flat_index();
  if (index >= total) {
    return;
  }
  const unsigned row = index / packs, column = index % packs * 4;
  const int32_t* sums = products + row * 3 * order + column;
  const auto high = *reinterpret_cast<const Pack<int32_t, 4>*>(sums);
  const auto middle = *reinterpret_cast<const Pack<int32_t, 4>*>(sums + order);
  const auto low = *reinterpret_cast<const Pack<int32_t, 4>*>(sums + 2 * order);
  Pack<float, 4> value;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const auto sum = static_cast<double>(joined(high.v[j], middle.v[j], low.v[j]));
    value.v[j] = activate<activation>(static_cast<float>(sum * unit[column + j] + constant[column + j]), parameter);
  }
  reinterpret_cast<Pack<float, 4>*>(out)[index] = value;
}

}  // namespace

bool ByteLayer::fits(const FeatureMap<float>& map, InputType type, Products products) {
  if (products != Products::automatic || type != InputType::u8 || map.layers.empty() ||
      map.layers.front().weight == nullptr) {
    return false;
  }
  for (int64_t j = 0; map.scale != nullptr && j < map.input_dim; ++j) {
    // NaN and what overflows float32 are told by the standardisation.
    if (!(centre * std::abs(map.scale[j]) <= largest_centre) || !std::isfinite(static_cast<float>(map.shift[j]))) {
      return false;
    }
  }
  return true;
}

int64_t ByteLayer::fixed_bytes(const FeatureMap<float>& map) {
  const Layer<float>& layer = map.layers.front();
  const int64_t order = byte_order(layer.outputs), d = map.input_dim;
  return 3 * order * pitch(d) + 2 * (order + d) * static_cast<int64_t>(sizeof(double)) +
         padded_rows(1) * (row_bytes(map) + 2 * pitch(d));
}

int64_t ByteLayer::row_bytes(const FeatureMap<float>& map) {
  return 3 * byte_order(map.layers.front().outputs) * static_cast<int64_t>(sizeof(int32_t));
}

int64_t ByteLayer::padded_rows(int64_t count) { return byte_order(count); }

ByteLayer::ByteLayer(Scope& scope, const FeatureMap<float>& on_device, const FeatureMap<float>& map, int64_t rows)
    : scope_(scope), layer_(on_device.layers.front()), order_(byte_order(layer_.outputs)) {
  const int64_t d = layer_.inputs, ld = pitch(d);
  slices_ = scope.device<int8_t>(3 * order_ * ld);
  unit_ = scope.device<double>(order_);
  constant_ = scope.device<double>(order_);
  products_ = scope.device<int32_t>(padded_rows(rows) * 3 * order_);
  const double* scale = map.scale == nullptr ? nullptr : scope.upload(map.scale, d);
  const double* shift = map.shift == nullptr ? nullptr : scope.upload(map.shift, d);
  launch("slice_weights", &slice_weights_kernel, grid_of(order_), threads,
         2 * threads * static_cast<int64_t>(sizeof(double)), scope.context.compute, layer_, scale, shift, order_, ld,
         slices_, unit_, constant_);
}

void ByteLayer::apply(std::byte* bytes, int64_t count, float* out) const {
  cudaStream_t stream = scope_.context.compute;
  const int64_t ld = pitch(layer_.inputs), packs = count * ld / 16;
  launch("centre", &centre_kernel, grid_of(ceil_div(narrow(packs), threads)), threads, 0, stream, bytes, packs);
  multiply_bytes(scope_, padded_rows(count), 3 * order_, ld, reinterpret_cast<const int8_t*>(bytes), ld, slices_, ld,
                 false, products_, 3 * order_);
  const int64_t across = pitch(layer_.outputs) / 4, total = count * across;
  const auto run = [&](auto kernel) {
    launch("byte_epilogue", kernel, grid_of(ceil_div(narrow(total), threads)), threads, 0, stream, products_, order_,
           unit_, constant_, layer_.parameter, out, across, total);
  };
  switch (layer_.activation) {
    case Activation::linear:
      return run(&byte_epilogue_kernel<Activation::linear>);
    case Activation::leaky_relu:
      return run(&byte_epilogue_kernel<Activation::leaky_relu>);
    case Activation::cosine:
      return run(&byte_epilogue_kernel<Activation::cosine>);
  }
}

}  // namespace krrdistill::cuda
