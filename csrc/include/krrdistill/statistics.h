// Sufficient statistics of ridge regression, one tile at a time: G += phi(X)^T phi(X), C += Y^T phi(X).
// The n x p feature matrix never exists.
#pragma once

#include <cstdint>

#include "krrdistill/feature_map.h"

namespace krrdistill {

// Either class labels (n) in [0, k), or real targets (n, k) row-major. Both are indexed by the row of
// the batch after the gather, that is like the data: row rows[i]; gathered labels are those of the batch alone, in its
// order. k may be 0 for targets: then there is G alone.
struct Targets {
  const int64_t* labels = nullptr;
  const double* values = nullptr;
  int64_t k = 0;
  bool gathered = false;

  // Of row i of the batch.
  [[nodiscard]] int64_t label(const Input& input, int64_t i) const { return labels[gathered ? i : input.row_of(i)]; }
};

// Elements (of T) of workspace that `accumulate` needs. Throws std::length_error where that does not fit 64 bits.
template <typename T>
int64_t accumulate_workspace(const FeatureMap<T>& map, int64_t tile_rows, const Targets& targets);

// gram (p, p): the lower triangle in row-major order is updated (call symmetrize when done).
// cross (k, p) row-major. Tiles are multiplied in T and added in double at least every
// `flush_rows` rows. Of up to 1024 features in float every thread sums its own rows: BLAS needs one thread only.
// With T = double, bytes under a map without layers are summed as integers where
// `has_byte_products`: exact, and faster than either float. Throws NonFinite.
template <typename T>
void accumulate(const FeatureMap<T>& map, const Input& input, const Targets& targets, int64_t tile_rows, double* gram,
                double* cross, T* workspace);

constexpr int64_t flush_rows = 4096;

// Whether there are integer products of bytes for this CPU and the current instruction set.
bool has_byte_products();

// Copies the lower triangle (row-major) over the upper one.
void symmetrize(double* gram, int64_t p);

}  // namespace krrdistill
