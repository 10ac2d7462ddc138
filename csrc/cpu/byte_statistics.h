// G and C of bytes under x * scale + shift, from integer sums. Used by statistics.cpp.
#pragma once

#include <cstdint>

#include "krrdistill/feature_map.h"
#include "krrdistill/statistics.h"

namespace krrdistill {

// Doubles of workspace.
int64_t byte_statistics_workspace(int64_t p, int64_t k);

// The lower triangle of gram += phi^T phi and, where targets are labels, cross += Y^T phi, of a map without layers.
void accumulate_bytes(const FeatureMap<double>& map, const Input& input, const Targets& targets, double* gram,
                      double* cross, double* workspace);

}  // namespace krrdistill
