// The hot loop of the whole package: features of a tile, SYRK on one triangle, class sums. Few features have one of
// their own, row_statistics.cpp.
#include "krrdistill/statistics.h"

#include <algorithm>
#include <type_traits>

#include "common/checked_blas.h"
#include "common/checked_size.h"
#include "cpu/byte_statistics.h"
#include "cpu/row_statistics.h"
#include "cpu/slice_products.h"
#include "cpu/target_products.h"
#include "krrdistill/elementwise.h"
#include "krrdistill/interrupt.h"

namespace krrdistill {
namespace {

template <typename T>
bool sums_integers(const FeatureMap<T>& map, const Input& input) {
  return std::is_same_v<T, double> && map.layers.empty() && input.type == InputType::u8 && has_byte_products();
}

// gram += scratch on the lower triangle (row-major), in double.
template <typename T>
void flush(const T* scratch, double* gram, int64_t p) {
  const auto& kernels = elementwise<T>();
#pragma omp parallel for schedule(dynamic, 64)
  for (int64_t i = 0; i < p; ++i) {
    kernels.accumulate(scratch + i * p, gram + i * p, i + 1);
  }
}

// Workspace of the products of a tile: slices, or one matrix that several tiles add to.
template <typename T>
int64_t product_workspace(int64_t tile_rows, int64_t p) {
  if (std::is_same_v<T, double>) {
    return 0;
  }
  return slices_pay(p, p, tile_rows) ? slice_syrk_workspace(tile_rows, p) : checked_product(p, p);
}

// cross[label] += features, split by columns: every thread owns its columns, so the sum's order
// (and its value) does not depend on the number of threads.
template <typename T>
void add_class_sums(const T* features, int64_t count, int64_t p, const Input& input, const Targets& targets,
                    int64_t first, double* cross) {
  const auto& kernels = elementwise<T>();
  constexpr int64_t columns = 256;
  const int64_t blocks = (p + columns - 1) / columns;
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t column = block * columns;
    const int64_t width = std::min(columns, p - column);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t label = targets.label(input, first + i);
      kernels.accumulate(features + i * p + column, cross + label * p + column, width);
    }
  }
}

// Whether all sums were formed in another way: those of few features in float, or of bytes as integers.
template <typename T>
bool accumulated_otherwise(const FeatureMap<T>& map, const Input& input, const Targets& targets,
                           [[maybe_unused]] int64_t tile_rows, [[maybe_unused]] bool integers, double* gram,
                           double* cross, T* workspace) {
  if constexpr (std::is_same_v<T, float>) {
    if (map.output_dim() <= row_statistics_features) {
      accumulate_rows(map, input, targets, tile_rows, gram, cross, workspace);
      return true;
    }
  } else if (integers) {
    accumulate_bytes(map, input, targets, gram, cross, workspace);
    return targets.labels != nullptr || targets.k == 0;
  }
  return false;
}

}  // namespace

template <typename T>
int64_t accumulate_workspace(const FeatureMap<T>& map, int64_t tile_rows, const Targets& targets) {
  const int64_t p = map.output_dim();
  if constexpr (std::is_same_v<T, float>) {
    if (p <= row_statistics_features) {
      return row_statistics_workspace(map, tile_rows, targets);
    }
  }
  const int64_t tiles =
      checked_sum(tile_workspace(map, tile_rows), checked_product(tile_rows, p), product_workspace<T>(tile_rows, p),
                  target_products_workspace(tile_rows, p, targets));
  return std::is_same_v<T, double> && map.layers.empty() ? std::max(tiles, byte_statistics_workspace(p, targets.k))
                                                         : tiles;
}

template <typename T>
void accumulate(const FeatureMap<T>& map, const Input& input, const Targets& targets, int64_t tile_rows, double* gram,
                double* cross, T* workspace) {
  const int64_t p = map.output_dim();
  const bool integers = sums_integers(map, input);
  if (accumulated_otherwise(map, input, targets, tile_rows, integers, gram, cross, workspace)) {
    return;
  }
  T* features = workspace;
  T* scratch = features + tile_rows * p;
  T* target_space = scratch + product_workspace<T>(tile_rows, p);
  T* tile_space = target_space + target_products_workspace(tile_rows, p, targets);
  int64_t pending = 0;  // rows in `scratch` that are not yet in `gram`
  for (int64_t first = 0; first < input.n; first += tile_rows) {
    check_interrupt();
    const int64_t count = std::min(tile_rows, input.n - first);
    transform_tile(map, input, first, count, features, tile_space);
    // G is symmetric: the upper triangle in BLAS's column-major order is our lower one in row-major order.
    if constexpr (std::is_same_v<T, double>) {
      if (!integers) {
        syrk<double>('U', p, count, 1.0, features, p, 1.0, gram, p);
      }
    } else if (slices_pay(p, p, tile_rows)) {
      slice_syrk(features, count, p, gram, scratch);
    } else {
      syrk<T>('U', p, count, T(1), features, p, pending == 0 ? T(0) : T(1), scratch, p);
      pending += count;
      if (pending >= flush_rows || first + count == input.n) {
        flush(scratch, gram, p);
        pending = 0;
      }
    }
    if (targets.labels != nullptr) {
      add_class_sums(features, count, p, input, targets, first, cross);
    } else if (targets.k > 0) {  // BLAS refuses matrices without columns
      add_target_products(features, count, p, input, targets, first, cross, target_space);
    }
  }
}

void symmetrize(double* gram, int64_t p) {
  constexpr int64_t block = 64;  // a 64 x 64 tile of doubles and its mirror fit the L2 cache
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t ib = 0; ib < p; ib += block) {
    for (int64_t jb = 0; jb <= ib; jb += block) {
      for (int64_t i = ib; i < std::min(ib + block, p); ++i) {
        for (int64_t j = jb; j < std::min(jb + block, i); ++j) {
          gram[j * p + i] = gram[i * p + j];
        }
      }
    }
  }
}

template int64_t accumulate_workspace(const FeatureMap<float>&, int64_t, const Targets&);
template int64_t accumulate_workspace(const FeatureMap<double>&, int64_t, const Targets&);
template void accumulate(const FeatureMap<float>&, const Input&, const Targets&, int64_t, double*, double*, float*);
template void accumulate(const FeatureMap<double>&, const Input&, const Targets&, int64_t, double*, double*, double*);

}  // namespace krrdistill
