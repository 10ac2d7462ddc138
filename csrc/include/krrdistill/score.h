// How many rows every model of a path classifies correctly, tile by tile.
#pragma once

#include <cstdint>

#include "krrdistill/feature_map.h"

namespace krrdistill {

// Elements of workspace that score_path needs for tiles of `tile_rows` rows and `models` models of k rows.
template <typename T>
int64_t score_path_workspace(const FeatureMap<T>& map, int64_t tile_rows, int64_t models, int64_t k);

// weights (models, k, p) row-major; labels indexed by the gathered row. correct (models) is overwritten with
// the number of rows whose largest score (the first of equals) is the label's. Throws NonFinite.
template <typename T>
void score_path(const FeatureMap<T>& map, const Input& input, const int64_t* labels, const T* weights, int64_t models,
                int64_t k, int64_t tile_rows, int64_t* correct, T* workspace);

}  // namespace krrdistill
