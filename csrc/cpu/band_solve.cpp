#include <algorithm>

#include "common/checked_size.h"
#include "common/threads.h"
#include "cpu/band_cholesky.h"
#include "krrdistill/band.h"

namespace krrdistill {

int64_t solve_band_workspace(int64_t p) {
  return checked_sum(band_cholesky_size(p), checked_product(max_threads(), columns_workspace(p)));
}

bool solve_band(const BandReduction& r, double shift, double* columns, int64_t count, double* workspace) {
  const BandCholesky cholesky(r);
  if (!cholesky.factor(shift, workspace)) {
    return false;
  }
  double* scratch = workspace + band_cholesky_size(r.p);
  const int64_t thread = columns_workspace(r.p);                                               // this may throw
  const int64_t step = std::max(solved_columns, (count + max_threads() - 1) / max_threads());  // of one thread
#pragma omp parallel for schedule(static) if (count > solved_columns)
  for (int64_t first = 0; first < count; first += step) {
    cholesky.solve(workspace, columns, first, std::min(first + step, count), scratch + thread_number() * thread);
  }
  return true;
}

}  // namespace krrdistill
