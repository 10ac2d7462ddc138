// The first layer on bytes u. With phi = a u + b, c = u - 128 and W' = W diag(a),
//
//     W phi + bias = W' c + (W (b + 128 a) + bias),
//
// W' in 24 bits with a power of two for each row, as three int8 slices: their products with c are exact sums of
// integers. What is left is the rounding of W', and one of the result to float32.
#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

class ByteLayer {
 public:
  // Whether it takes the place of a float32 product: bytes, a dense first layer, and inputs that are not much smaller
  // than 128 a. Where a mean much larger than the spread cancels, float32 standardises first and is more accurate.
  static bool fits(const FeatureMap<float>& map, InputType type, Products products);

  static int64_t fixed_bytes(const FeatureMap<float>& map);
  static int64_t row_bytes(const FeatureMap<float>& map);

  // `on_device`: the map with its weights there, `map` with scale and shift in host memory.
  ByteLayer(Scope& scope, const FeatureMap<float>& on_device, const FeatureMap<float>& map, int64_t rows);

  // out (count, stride pitch(outputs)) = the layer of bytes (stride pitch(inputs)), which are overwritten. The bytes
  // have padded_rows(count) rows of memory.
  void apply(std::byte* bytes, int64_t count, float* out) const;
  static int64_t padded_rows(int64_t count);

 private:
  Scope& scope_;
  Layer<float> layer_;
  int64_t order_;      // byte_order(outputs)
  int8_t* slices_;     // (3, order, pitch(inputs)), the most significant first
  double* unit_;       // (order), of the least significant slice
  double* constant_;   // (order)
  int32_t* products_;  // (rows, 3, order)
};

}  // namespace krrdistill::cuda
