// Scores of all models are one GEMM per tile; one kernel then counts for all of them.
#include "krrdistill/score.h"

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "cuda/elementwise.h"
#include "cuda/feature_map.h"
#include "cuda/products.h"

namespace krrdistill::cuda {
namespace {

constexpr int threads = 128;
constexpr int64_t rows_per_thread = 8;

// `width` neighbouring threads, a power of two <= 32, find the first of the largest scores of one row and model:
// each takes every width-th class, then the best are compared in log2(width) shuffles.
template <typename T>
__global__ void __launch_bounds__(threads) count_kernel(const T* scores, int64_t ld, const int64_t* labels, int64_t k,
                                                        int64_t count, int width, unsigned long long* correct) {
  const int member = static_cast<int>(threadIdx.x) % width;
  const int64_t groups = threads / width;
  const int64_t model = blockIdx.x;
  unsigned long long right = 0;
  for (int64_t base = blockIdx.y * groups; base < count; base += gridDim.y * groups) {  // alike for the whole block
    const int64_t row = base + threadIdx.x / width;
    const bool valid = row < count;
    const T* score = scores + (valid ? row : 0) * ld + model * k;
    T best = member == 0 ? score[0] : static_cast<T>(-INFINITY);
    int64_t index = member == 0 ? 0 : k;
    for (int64_t c = member == 0 ? width : member; c < k; c += width) {
      if (score[c] > best) {
        best = score[c];
        index = c;
      }
    }
    for (int delta = width / 2; delta > 0; delta /= 2) {
      const T other = __shfl_down_sync(0xFFFFFFFFU, best, delta, width);
      const int64_t other_index = __shfl_down_sync(0xFFFFFFFFU, index, delta, width);
      if (other > best || (other == best && other_index < index)) {
        best = other;
        index = other_index;
      }
    }
    right += valid && member == 0 && index == labels[row] ? 1 : 0;
  }
  if (right > 0) {
    atomicAdd(correct + model, right);
  }
}

// out = weights, and zero where they are NaN
template <typename T>
__global__ void __launch_bounds__(threads) convert_kernel(const double* weights, int64_t n, T* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) {
    out[i] = weights[i] == weights[i] ? static_cast<T>(weights[i]) : T(0);
  }
}

int width_of(int64_t k) {
  int width = 1;
  while (width < 32 && width < k) {
    width *= 2;
  }
  return width;
}

// place(scope, n) gives the n numbers of the weights (models, k, p) on the device.
template <typename T, typename Place>
void score(Context& context, const FeatureMap<T>& map, const Source& input, const int64_t* labels, const Place& place,
           int64_t models, int64_t k, int64_t tile_rows, int64_t* correct) {
  using Tile = typename TileStream<T>::Tile;
  std::fill(correct, correct + models, int64_t{0});
  if (models == 0) {
    return;
  }
  Scope scope(context);
  const int64_t p = map.output_dim(), size = sizeof(T), all = models * k;
  const int64_t counts = models * static_cast<int64_t>(sizeof(unsigned long long));
  TileStream<T> tiles(scope, "score_path", map, input, tile_rows,
                      {.fixed = all * p * size + counts, .per_row = all * size, .extra_per_row = sizeof(int64_t)});
  const T* device_weights = place(scope, all * p);
  T* scores = scope.device<T>(tiles.rows() * all);
  auto* device_correct = scope.device<unsigned long long>(models);
  clear(context.compute, device_correct, models);
  const int width = width_of(k);
  const auto fill = [&](int64_t first, int64_t count, std::byte* extra) {
    auto* out = reinterpret_cast<int64_t*>(extra);
    for (int64_t i = 0; i < count; ++i) {
      out[i] = labels[input.row_of(first + i)];
    }
  };
  const auto use = [&](const Tile& tile) {
    gemm<T>(scope, CUBLAS_OP_T, CUBLAS_OP_N, all, tile.count, p, device_weights, p, tile.features, pitch(p), T(0),
            scores, all);
    launch("count_correct", &count_kernel<T>,
           grid_of(models, ceil_div(tile.count, rows_per_thread * (threads / width))), threads, 0, context.compute,
           scores, all, reinterpret_cast<const int64_t*>(tile.extra), k, tile.count, width, device_correct);
  };
  tiles.for_each(fill, use);
  std::vector<unsigned long long> found(static_cast<size_t>(models));
  scope.download(found.data(), device_correct, models);
  std::transform(found.begin(), found.end(), correct, [](unsigned long long n) { return static_cast<int64_t>(n); });
}

}  // namespace

template <typename T>
void score_path(Context& context, const FeatureMap<T>& map, const Source& input, const int64_t* labels,
                const T* weights, int64_t models, int64_t k, int64_t tile_rows, int64_t* correct) {
  const auto upload = [&](Scope& scope, int64_t n) { return scope.upload(weights, n); };
  score(context, map, input, labels, upload, models, k, tile_rows, correct);
}

template <typename T>
void score_models(Context& context, const FeatureMap<T>& map, const Source& input, const int64_t* labels,
                  const Models& models, int64_t tile_rows, int64_t* correct) {
  const auto convert = [&](Scope& scope, int64_t n) {
    T* weights = scope.device<T>(n);
    launch("convert_models", &convert_kernel<T>, grid_of(ceil_div(n, threads)), threads, 0, context.compute,
           models.weights.get(), n, weights);
    return weights;
  };
  score(context, map, input, labels, convert, models.count, models.k, tile_rows, correct);
}

template <typename T>
void scores(Context& context, const FeatureMap<T>& map, const Source& input, const double* weights, int64_t r,
            int64_t tile_rows, double* out) {
  constexpr bool single = std::is_same_v<T, float>;
  Scope scope(context);
  const int64_t p = map.output_dim(), size = sizeof(double);
  TileStream<T> tiles(scope, "scores", map, input, tile_rows,
                      {.fixed = r * p * size, .per_row = (single ? pitch(p) + r : r) * size});
  const double* device_weights = scope.upload(weights, r * p);
  auto* wide = scope.device<double>(single ? tiles.rows() * pitch(p) : 0);
  auto* result = scope.device<double>(tiles.rows() * r);
  tiles.for_each(nullptr, [&](const typename TileStream<T>::Tile& tile) {
    const double* features = wide;
    if constexpr (single) {
      widen(context.compute, tile.features, wide, tile.count * pitch(p));
    } else {
      features = tile.features;
    }
    gemm<double>(scope, CUBLAS_OP_T, CUBLAS_OP_N, r, tile.count, p, device_weights, p, features, pitch(p), 0.0, result,
                 r);
    scope.download(out + tile.first * r, result, tile.count * r);
  });
}

template void scores(Context&, const FeatureMap<float>&, const Source&, const double*, int64_t, int64_t, double*);
template void scores(Context&, const FeatureMap<double>&, const Source&, const double*, int64_t, int64_t, double*);
template void score_path(Context&, const FeatureMap<float>&, const Source&, const int64_t*, const float*, int64_t,
                         int64_t, int64_t, int64_t*);
template void score_path(Context&, const FeatureMap<double>&, const Source&, const int64_t*, const double*, int64_t,
                         int64_t, int64_t, int64_t*);
template void score_models(Context&, const FeatureMap<float>&, const Source&, const int64_t*, const Models&, int64_t,
                           int64_t*);
template void score_models(Context&, const FeatureMap<double>&, const Source&, const int64_t*, const Models&, int64_t,
                           int64_t*);

}  // namespace krrdistill::cuda
