// The hot loop on the device: features of a tile, their products on one triangle, class sums.
#include "krrdistill/statistics.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>
#include <vector>

#include "cuda/byte_statistics.h"
#include "cuda/elementwise.h"
#include "cuda/feature_map.h"
#include "cuda/half_gram.h"
#include "cuda/halves.h"
#include "cuda/products.h"
#include "cuda/sliced_gram.h"
#include "cuda/vectors.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 128;
constexpr int64_t chain_rows = 256;  // of float32 sums: longer chains of positive terms exceed the noise floor
constexpr double float32_bound = 6.0 / (1 << 24);  // of such chains: their rounding grows like sqrt(chain_rows) / 3
// Rows by which it is judged whether slices will do, where there are several times as many.
constexpr int64_t probe_rows = 1024, probed_part = 4;
constexpr double tf32_bound = 1.0 / (1 << 15);  // 1.8e-5 was measured on an H100, whose accumulators truncate

// Columns that a thread of class_sums has: a warp reads 128 bytes of a row at least.
template <typename T>
constexpr int columns_of = sizeof(T) == 2 ? 2 : 1;

// cross[c] += the features of class c. `sorted`: starts (k + 1), then the rows of the tile by class. A thread owns
// columns of one class and adds their rows in order, so that two runs are bit-identical.
template <typename T>
__global__ void __launch_bounds__(threads)
    class_sums_kernel(const T* features, int64_t ld, const int* sorted, double* cross, int64_t p, int64_t k) {
  constexpr int n = columns_of<T>;
  const int64_t column = n * (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x);
  if (column >= p) {
    return;
  }
  const int* rows = sorted + k + 1;
  for (int64_t c = blockIdx.y; c < k; c += gridDim.y) {
    double sum[n]{};
#pragma unroll 4
    for (int i = sorted[c]; i < sorted[c + 1]; ++i) {
      const auto value = *reinterpret_cast<const Pack<T, n>*>(features + rows[i] * ld + column);
#pragma unroll
      for (int j = 0; j < n; ++j) {
        sum[j] += static_cast<double>(widen(value.v[j]));
      }
    }
    for (int j = 0; j < n && column + j < p; ++j) {
      cross[c * p + column + j] += sum[j];
    }
  }
}

template <typename T>
void add_class_sums(cudaStream_t stream, const T* features, const std::byte* sorted, double* cross, int64_t p,
                    int64_t k) {
  launch("class_sums", &class_sums_kernel<T>, grid_of(ceil_div(p, threads * columns_of<T>), k), threads, 0, stream,
         features, pitch(p), reinterpret_cast<const int*>(sorted), cross, p, k);
}

// Rows of the tile by class, in order: a counting sort.
void sort_by_class(const Input& input, const Targets& targets, int64_t first, int64_t count, int* sorted) {
  const auto label = [&](int64_t i) { return targets.label(input, first + i); };
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

// What a tile brings along: its rows by class, or its targets.
template <typename T>
typename TileStream<T>::Fill fill_of(const Input& input, const Targets& targets) {
  return [&](int64_t first, int64_t count, std::byte* extra) {
    if (targets.labels != nullptr) {
      sort_by_class(input, targets, first, count, reinterpret_cast<int*>(extra));
    } else {
      gather_targets(input, targets, first, count, reinterpret_cast<T*>(extra));
    }
  };
}

// The bytes of that, beside what the sums themselves need.
template <typename T>
typename TileStream<T>::Needs with_targets(typename TileStream<T>::Needs needs, const Targets& targets) {
  const bool classes = targets.labels != nullptr;
  needs.extra_fixed = classes ? (targets.k + 1) * static_cast<int64_t>(sizeof(int)) : 0;
  needs.extra_per_row = static_cast<int64_t>(classes ? sizeof(int) : targets.k * sizeof(T));
  return needs;
}

// Of G on the device, unless it is there.
int64_t own_elements(const Gram& gram, int64_t p) { return gram.resident == nullptr ? p * p : 0; }

double* total_of(Scope& scope, const Gram& gram, int64_t p) {
  return gram.resident == nullptr ? scope.upload(gram.host, p * p) : gram.resident->lower();
}

// C on the device: nothing crosses the bus while it is zero, as it is for those who add batches up themselves.
double* cross_of(Scope& scope, const double* cross, int64_t n) {
  if (std::any_of(cross, cross + n, [](double value) { return value != 0.0; })) {
    return scope.upload(cross, n);
  }
  auto* sums = scope.device<double>(n);
  clear(scope.context.compute, sums, n);
  return sums;
}

// C comes back, and with it G, or if that stays its trace: one wait for both.
void finish(Scope& scope, const Gram& gram, const double* total, int64_t p, double* cross, const double* total_cross,
            int64_t k) {
  if (gram.resident == nullptr) {
    scope.download(gram.host, total, p * p);
    scope.download(cross, total_cross, k * p);
    return;
  }
  const double* trace = gram.resident->send_trace(scope);
  scope.download(cross, total_cross, k * p);
  gram.resident->take_trace(*trace);
}

// gram += F^T F, each sum in float32 over at most chain_rows rows.
void add_chains(Scope& scope, const float* features, int64_t count, int64_t p, float* scratch, double* gram) {
  for (int64_t row = 0; row < count; row += chain_rows) {
    syrk<float>(scope, p, std::min(chain_rows, count - row), features + row * pitch(p), pitch(p), 0.0F, scratch, p);
    add(scope.context.compute, scratch, gram, p, p, true);
  }
}

// cross += Y^T F for real targets (count, k).
template <typename T>
void add_target_products(Scope& scope, const T* features, const T* targets, int64_t count, int64_t p, int64_t k,
                         T* product, double* cross) {
  const int64_t step = std::is_same_v<T, float> ? chain_rows : count;
  for (int64_t row = 0; row < count; row += step) {
    gemm<T>(scope, CUBLAS_OP_N, CUBLAS_OP_T, p, k, std::min(step, count - row), features + row * pitch(p), pitch(p),
            targets + row * k, k, T(0), product, p);
    add(scope.context.compute, product, cross, k, p, false);
  }
}

// cross += the class sums of a tile's features, of which `rows` are the numbers as they are stored or computed, or
// their products with real targets.
template <typename T, typename Row>
void add_cross(Scope& scope, const Targets& targets, const typename TileStream<T>::Tile& tile, const Row* rows,
               int64_t p, T* product, double* cross) {
  if (targets.labels != nullptr) {
    add_class_sums(scope.context.compute, rows, tile.extra, cross, p, targets.k);
  } else if (targets.k > 0) {
    add_target_products(scope, tile.features, reinterpret_cast<const T*>(tile.extra), tile.count, p, targets.k, product,
                        cross);
  }
}

// Bytes under a map without layers.
template <typename T>
Formed accumulate_bytes(Context& context, const FeatureMap<T>& map, const Source& input, const Targets& targets,
                        int64_t tile_rows, const Gram& gram, double* cross) {
  Scope scope(context);
  const int64_t p = map.output_dim(), k = targets.k, size = sizeof(T);
  const bool classes = targets.labels != nullptr;
  const int64_t products = classes ? 0 : k * size;  // of real targets with the features, for each feature
  TileStream<T> tiles(scope, "accumulate", map, input, tile_rows,
                      with_targets<T>({.fixed = (own_elements(gram, p) + k * p) * static_cast<int64_t>(sizeof(double)) +
                                                p * products + ByteStatistics::fixed_bytes(p, k),
                                       .per_row = ByteStatistics::row_bytes(p),
                                       .features = products > 0,
                                       .period = ByteStatistics::period},
                                      targets));
  double* total = total_of(scope, gram, p);
  double* total_cross = cross_of(scope, cross, k * p);
  ByteStatistics sums(scope, map.scale, map.shift, p, classes ? k : 1, tiles.rows());
  T* product = scope.device<T>(products * p / size);
  tiles.for_each(fill_of<T>(input, targets), [&](const typename TileStream<T>::Tile& tile) {
    sums.add(tile.raw, tile.count, classes ? reinterpret_cast<const int*>(tile.extra) : nullptr);
    if (sums.pending() >= ByteStatistics::period || tile.first + tile.count == input.n) {
      sums.flush(total, classes ? total_cross : nullptr);
    }
    if (products > 0) {
      add_target_products(scope, tile.features, reinterpret_cast<const T*>(tile.extra), tile.count, p, k, product,
                          total_cross);
    }
  });
  finish(scope, gram, total, p, cross, total_cross, k);
  return {Arithmetic::integers, 0.0};
}

// Rows of 16 bits that are the features themselves. Their sums are apart until it is known that the range of float32
// was enough; where it was not, also for infinity and NaN among the rows, nothing is added and nothing returned.
template <typename Half>
std::optional<Formed> accumulate_halves(Context& context, const FeatureMap<float>& map, const Source& input,
                                        const Targets& targets, int64_t tile_rows, const Gram& gram, double* cross) {
  Scope scope(context);
  cudaStream_t stream = context.compute;
  const int64_t p = map.output_dim(), k = targets.k, size = sizeof(float);
  const bool classes = targets.labels != nullptr;
  const int64_t products = classes ? 0 : k;  // of real targets with the features, which are converted for them
  const int64_t slabs = HalfGram::slabs_for(scope, p, std::min(tile_rows, input.n));
  TileStream<float> tiles(
      scope, "accumulate", map, input, tile_rows,
      with_targets<float>({.fixed = (own_elements(gram, p) + p * p + 2 * k * p) * static_cast<int64_t>(sizeof(double)) +
                                    HalfGram::fixed_bytes(p, slabs) + p * products * size,
                           .features = products > 0},
                          targets));
  double* sums = scope.device<double>(p * p);
  double* sums_cross = scope.device<double>(k * p);
  clear(stream, sums, p * p);
  clear(stream, sums_cross, k * p);
  auto* product = scope.device<float>(products * p);
  HalfGram halves(scope, p, slabs);
  tiles.for_each(fill_of<float>(input, targets), [&](const TileStream<float>::Tile& tile) {
    const auto* rows = reinterpret_cast<const Half*>(tile.raw);
    halves.add(rows, tile.count, sums);
    add_cross(scope, targets, tile, rows, p, product, sums_cross);
  });
  const double bound = halves.bound(sums);
  if (!std::isfinite(bound)) {
    return std::nullopt;
  }
  double* total = total_of(scope, gram, p);
  double* total_cross = cross_of(scope, cross, k * p);
  add(stream, sums, total, p, p, true);
  add(stream, sums_cross, total_cross, k, p, false);
  finish(scope, gram, total, p, cross, total_cross, k);
  return Formed{Arithmetic::halves, bound};
}

// Features in T. By slices, the sums of these rows are apart until it is known that they are accurate enough.
template <typename T>
Formed accumulate_features(Context& context, const FeatureMap<T>& map, const Source& input, const Targets& targets,
                           int64_t tile_rows, const Gram& gram, double* cross) {
  using Tile = typename TileStream<T>::Tile;
  constexpr bool single = std::is_same_v<T, float>;
  const bool slices = single && context.options.products == Products::automatic;
  Scope scope(context);
  cudaStream_t stream = context.compute;
  const int64_t p = map.output_dim(), k = targets.k, size = sizeof(T);
  const bool classes = targets.labels != nullptr;
  const int64_t partial = single ? p * p : 0;  // G of a chain of float32 sums
  const int64_t fixed =
      (own_elements(gram, p) + (slices ? p * p : 0) + (slices ? 2 : 1) * k * p) * static_cast<int64_t>(sizeof(double)) +
      (slices ? SlicedGram::fixed_bytes(p) : 0) + (partial + (classes ? 0 : k * p)) * size;
  TileStream<T> tiles(scope, "accumulate", map, input, slices ? std::min(tile_rows, SlicedGram::most_rows) : tile_rows,
                      with_targets<T>({.fixed = fixed, .per_row = slices ? SlicedGram::row_bytes(p) : 0}, targets));
  double* total = total_of(scope, gram, p);
  double* total_cross = cross_of(scope, cross, k * p);
  double* sums = slices ? scope.device<double>(p * p) : total;
  double* sums_cross = slices ? scope.device<double>(k * p) : total_cross;
  T* product = scope.device<T>(classes ? 0 : k * p);
  T* scratch = nullptr;
  std::optional<SlicedGram> sliced;

  const auto start = [&](bool by_slices) {
    if (slices) {
      clear(stream, sums, p * p);
      clear(stream, sums_cross, k * p);
    }
    if (by_slices) {
      sliced.emplace(scope, p, tiles.rows());
    } else {
      sliced.reset();
      scratch = scope.device<T>(partial);
    }
  };
  const auto add_gram = [&](const Tile& tile) {
    if constexpr (single) {
      int64_t done = 0;
      if (sliced && tile.first == 0 && input.n >= probed_part * probe_rows) {
        // Whether slices will be accurate enough shows in a few rows: if not, they are left at once, not at the end.
        done = std::min(probe_rows, tile.count);
        sliced->add(tile.features, done, sums);
        if (sliced->outlook(sums, input.n) > float32_bound) {
          start(false);
          done = 0;
        }
      }
      const float* features = tile.features + done * pitch(p);
      if (!sliced) {
        add_chains(scope, features, tile.count - done, p, scratch, sums);
      } else if (done < tile.count) {
        sliced->add(features, tile.count - done, sums);
      }
    } else {
      // G is symmetric: the upper triangle in the column-major order of cuBLAS is our lower one in row-major order.
      syrk<T>(scope, p, tile.count, tile.features, pitch(p), T(1), sums, p);
    }
  };
  const auto use = [&](const Tile& tile) {
    add_gram(tile);
    add_cross(scope, targets, tile, tile.features, p, product, sums_cross);
  };
  Formed formed{.arithmetic = Arithmetic::float64, .bound = 0.0};
  if (single) {
    const bool tf32 = context.options.products == Products::tf32;
    formed = tf32 ? Formed{Arithmetic::tf32, tf32_bound} : Formed{Arithmetic::float32, float32_bound};
  }
  start(slices);
  tiles.for_each(fill_of<T>(input, targets), use);
  if (sliced) {
    const double bound = sliced->bound(sums);
    if (bound > float32_bound) {
      start(false);
      tiles.for_each(fill_of<T>(input, targets), use);
    } else {  // NaN, too: what overflows does so in every arithmetic
      formed = {Arithmetic::slices, bound};
    }
  }
  if (slices) {
    add(stream, sums, total, p, p, true);
    add(stream, sums_cross, total_cross, k, p, false);
  }
  finish(scope, gram, total, p, cross, total_cross, k);
  return formed;
}

}  // namespace

template <typename T>
Formed accumulate(Context& context, const FeatureMap<T>& map, const Source& input, const Targets& targets,
                  int64_t tile_rows, const Gram& gram, double* cross) {
  if constexpr (std::is_same_v<T, double>) {
    if (map.layers.empty() && input.type == InputType::u8 && context.options.products == Products::automatic) {
      return accumulate_bytes(context, map, input, targets, tile_rows, gram, cross);
    }
  }
  if constexpr (std::is_same_v<T, float>) {
    const bool plain = map.layers.empty() && map.scale == nullptr;
    if (plain && is_half(input.type) && context.options.products == Products::automatic) {
      const auto run = input.type == InputType::f16 ? &accumulate_halves<__half> : &accumulate_halves<__nv_bfloat16>;
      if (const auto formed = run(context, map, input, targets, tile_rows, gram, cross)) {
        return *formed;
      }
    }
  }
  return accumulate_features(context, map, input, targets, tile_rows, gram, cross);
}

template Formed accumulate(Context&, const FeatureMap<float>&, const Source&, const Targets&, int64_t, const Gram&,
                           double*);
template Formed accumulate(Context&, const FeatureMap<double>&, const Source&, const Targets&, int64_t, const Gram&,
                           double*);

}  // namespace krrdistill::cuda
