// Statistics of few features in float32: rows beside each other instead of columns, so that no thread waits for
// another.
#pragma once

#include <cstdint>

#include "krrdistill/statistics.h"

namespace krrdistill {

constexpr int64_t row_statistics_features = 1024;  // at most: beyond, BLAS divides products well

// Floats of workspace, for all threads.
int64_t row_statistics_workspace(const FeatureMap<float>& map, int64_t tile_rows, const Targets& targets);

// See `accumulate`. Every thread forms the sums of its own groups of rows; they are added in the order of the groups,
// so that their bits do not depend on the number of threads.
void accumulate_rows(const FeatureMap<float>& map, const Input& input, const Targets& targets, int64_t tile_rows,
                     double* gram, double* cross, float* workspace);

}  // namespace krrdistill
