// Sums of real targets times features: one GEMM per tile.
#pragma once

#include <cstdint>

#include "common/checked_blas.h"
#include "common/checked_size.h"
#include "krrdistill/elementwise.h"
#include "krrdistill/statistics.h"

namespace krrdistill {

// None for labels, whose sums take no product.
inline int64_t target_products_workspace(int64_t tile_rows, int64_t p, const Targets& targets) {
  return targets.labels != nullptr ? 0 : checked_product(targets.k, checked_sum(tile_rows, p));
}

// cross += Y^T features for real targets: the product in T, added in double.
template <typename T>
void add_target_products(const T* features, int64_t count, int64_t p, const Input& input, const Targets& targets,
                         int64_t first, double* cross, T* workspace) {
  T* tile_targets = workspace;
  T* product = workspace + count * targets.k;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t row = input.row_of(first + i);
    for (int64_t c = 0; c < targets.k; ++c) {
      tile_targets[i * targets.k + c] = static_cast<T>(targets.values[row * targets.k + c]);
    }
  }
  gemm<T>('N', 'T', p, targets.k, count, T(1), features, p, tile_targets, targets.k, T(0), product, p);
  const auto& kernels = elementwise<T>();
  for (int64_t c = 0; c < targets.k; ++c) {
    kernels.accumulate(product + c * p, cross + c * p, p);
  }
}

}  // namespace krrdistill
