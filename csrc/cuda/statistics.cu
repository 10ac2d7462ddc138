// The hot loop on the device: features of a tile, SYRK on one triangle, class sums.
#include "krrdistill/statistics.h"

#include <algorithm>
#include <type_traits>
#include <vector>

#include "cuda/elementwise.h"
#include "cuda/feature_map.h"
#include "cuda/products.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 128;

// cross[c] += the features of class c. `sorted`: starts (k + 1), then the rows of the tile by class. A thread owns
// one column of one class and adds its rows in order, so that two runs are bit-identical.
template <typename T>
__global__ void __launch_bounds__(threads)
    class_sums_kernel(const T* features, int64_t ld, const int* sorted, double* cross, int64_t p, int64_t k) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= p) {
    return;
  }
  const int* rows = sorted + k + 1;
  for (int64_t c = blockIdx.y; c < k; c += gridDim.y) {
    double sum = 0.0;
    for (int i = sorted[c]; i < sorted[c + 1]; ++i) {
      sum += static_cast<double>(features[rows[i] * ld + column]);
    }
    cross[c * p + column] += sum;
  }
}

// Rows of the tile by class, in order: a counting sort.
void sort_by_class(const Input& input, const Targets& targets, int64_t first, int64_t count, int* sorted) {
  const auto label = [&](int64_t i) { return targets.labels[input.row_of(first + i)]; };
  int* starts = sorted;
  int* rows = sorted + targets.k + 1;
  std::fill(starts, starts + targets.k + 1, 0);
  for (int64_t i = 0; i < count; ++i) {
    ++starts[label(i) + 1];
  }
  for (int64_t c = 0; c < targets.k; ++c) {
    starts[c + 1] += starts[c];
  }
  std::vector<int> next(starts, starts + targets.k);
  for (int64_t i = 0; i < count; ++i) {
    rows[next[static_cast<size_t>(label(i))]++] = static_cast<int>(i);
  }
}

template <typename T>
void gather_targets(const Input& input, const Targets& targets, int64_t first, int64_t count, T* out) {
  for (int64_t i = 0; i < count; ++i) {
    const double* row = targets.values + input.row_of(first + i) * targets.k;
    std::transform(row, row + targets.k, out + i * targets.k, [](double value) { return static_cast<T>(value); });
  }
}

}  // namespace

template <typename T>
void accumulate(Context& context, const FeatureMap<T>& map, const Source& input, const Targets& targets,
                int64_t tile_rows, const Gram& gram, double* cross) {
  using Tile = typename TileStream<T>::Tile;
  Scope scope(context);
  cudaStream_t stream = context.compute;
  const int64_t p = map.output_dim(), k = targets.k, size = sizeof(T);
  const bool classes = targets.labels != nullptr;
  const int64_t partial = std::is_same_v<T, float> ? p * p : 0;  // G of up to flush_rows rows in float
  const int64_t own = gram.resident == nullptr ? p * p : 0;
  const int64_t fixed = (own + k * p) * static_cast<int64_t>(sizeof(double)) + (partial + k * p) * size;
  TileStream<T> tiles(scope, "accumulate", map, input, tile_rows, fixed, 0,
                      classes ? (k + 1) * static_cast<int64_t>(sizeof(int)) : 0,
                      classes ? static_cast<int64_t>(sizeof(int)) : k * size);
  double* total = gram.resident == nullptr ? scope.upload(gram.host, p * p) : gram.resident->lower();
  double* total_cross = scope.upload(cross, k * p);
  T* scratch = scope.device<T>(partial);
  T* product = scope.device<T>(classes ? 0 : k * p);
  int64_t pending = 0;  // rows in `scratch` that are not yet in `total`

  const auto fill = [&](int64_t first, int64_t count, std::byte* extra) {
    if (classes) {
      sort_by_class(input, targets, first, count, reinterpret_cast<int*>(extra));
    } else {
      gather_targets(input, targets, first, count, reinterpret_cast<T*>(extra));
    }
  };
  const auto use = [&](const Tile& tile) {
    // G is symmetric: the upper triangle in the column-major order of cuBLAS is our lower one in row-major order.
    if constexpr (std::is_same_v<T, double>) {
      syrk<T>(scope, p, tile.count, tile.features, pitch(p), T(1), total, p);
    } else {
      syrk<T>(scope, p, tile.count, tile.features, pitch(p), pending == 0 ? T(0) : T(1), scratch, p);
      pending += tile.count;
      if (pending >= flush_rows || tile.first + tile.count == input.n) {
        add(stream, scratch, total, p, p, true);
        pending = 0;
      }
    }
    if (classes) {
      launch("class_sums", &class_sums_kernel<T>, grid_of(ceil_div(p, threads), k), threads, 0, stream, tile.features,
             pitch(p), reinterpret_cast<const int*>(tile.extra), total_cross, p, k);
    } else {
      gemm<T>(scope, CUBLAS_OP_N, CUBLAS_OP_T, p, k, tile.count, tile.features, pitch(p),
              reinterpret_cast<const T*>(tile.extra), k, T(0), product, p);
      add(stream, product, total_cross, k, p, false);
    }
  };
  tiles.for_each(fill, use);
  if (gram.resident == nullptr) {
    scope.download(gram.host, total, p * p);
  }
  scope.download(cross, total_cross, k * p);
}

template void accumulate(Context&, const FeatureMap<float>&, const Source&, const Targets&, int64_t, const Gram&,
                         double*);
template void accumulate(Context&, const FeatureMap<double>&, const Source&, const Targets&, int64_t, const Gram&,
                         double*);

}  // namespace krrdistill::cuda
