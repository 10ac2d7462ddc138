// Scores of all models are one GEMM per tile: features (rows, p) times weights (models * k, p) transposed.
#include "krrdistill/score.h"

#include <algorithm>

#include "common/checked_blas.h"
#include "common/checked_size.h"
#include "krrdistill/interrupt.h"

namespace krrdistill {
namespace {

template <typename T>
int64_t arg_max(const T* scores, int64_t k) {
  int64_t best = 0;
  for (int64_t c = 1; c < k; ++c) {
    if (scores[c] > scores[best]) {
      best = c;
    }
  }
  return best;
}

}  // namespace

template <typename T>
int64_t score_path_workspace(const FeatureMap<T>& map, int64_t tile_rows, int64_t models, int64_t k) {
  return checked_sum(tile_workspace(map, tile_rows),
                     checked_product(tile_rows, checked_sum(map.output_dim(), checked_product(models, k))));
}

template <typename T>
void score_path(const FeatureMap<T>& map, const Input& input, const int64_t* labels, const T* weights, int64_t models,
                int64_t k, int64_t tile_rows, int64_t* correct, T* workspace) {
  const int64_t p = map.output_dim();
  const int64_t width = models * k;
  T* features = workspace;
  T* scores = features + tile_rows * p;
  T* tile_space = scores + tile_rows * width;
  std::fill(correct, correct + models, int64_t{0});
  for (int64_t first = 0; first < input.n; first += tile_rows) {
    check_interrupt();
    const int64_t count = std::min(tile_rows, input.n - first);
    transform_tile(map, input, first, count, features, tile_space);
    gemm<T>('T', 'N', width, count, p, T(1), weights, p, features, p, T(0), scores, width);
#pragma omp parallel for schedule(static)
    for (int64_t model = 0; model < models; ++model) {
      for (int64_t i = 0; i < count; ++i) {
        const int64_t row = input.row_of(first + i);
        correct[model] += arg_max(scores + i * width + model * k, k) == labels[row] ? 1 : 0;
      }
    }
  }
}

template int64_t score_path_workspace(const FeatureMap<float>&, int64_t, int64_t, int64_t);
template int64_t score_path_workspace(const FeatureMap<double>&, int64_t, int64_t, int64_t);
template void score_path(const FeatureMap<float>&, const Input&, const int64_t*, const float*, int64_t, int64_t,
                         int64_t, int64_t*, float*);
template void score_path(const FeatureMap<double>&, const Input&, const int64_t*, const double*, int64_t, int64_t,
                         int64_t, int64_t*, double*);

}  // namespace krrdistill
