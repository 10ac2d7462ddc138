// The reduction to a band of ridge_band.cpp; then per lambda a factor of the band and the diagonal of its inverse.
#include "krrdistill/degrees_of_freedom.h"

#include <algorithm>
#include <limits>

#include "common/checked_size.h"
#include "common/threads.h"
#include "cpu/band_cholesky.h"
#include "krrdistill/band.h"

namespace krrdistill {
namespace {

// Doubles that a thread has to itself.
int64_t thread_workspace(int64_t p) { return checked_sum(band_cholesky_size(p), trace_of_inverse_workspace(p)); }

}  // namespace

int64_t degrees_of_freedom_workspace(int64_t p) {
  const int64_t width = band_width(p);
  return checked_sum(checked_product(p, 2 * width + 1),
                     std::max(reduce_to_band_workspace(p), checked_product(max_threads(), thread_workspace(p))));
}

void degrees_of_freedom(double* gram, int64_t p, const double* lambda, int64_t lambdas, double* degrees,
                        double* workspace) {
  const int64_t width = band_width(p);
  double* factors = workspace;
  double* band = factors + p * width;
  double* scratch = band + p * (width + 1);
  const BandReduction reduction{.p = p, .width = width, .vectors = gram, .factors = factors, .band = band};
  reduce_to_band(reduction, scratch);
  const BandCholesky cholesky(reduction);
  const int64_t factor_size = band_cholesky_size(p), size = thread_workspace(p);  // these may throw
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t l = 0; l < lambdas; ++l) {
    double* factor = scratch + thread_number() * size;
    degrees[l] = cholesky.factor(lambda[l], factor)
                     ? static_cast<double>(p) - lambda[l] * cholesky.trace_of_inverse(factor, factor + factor_size)
                     : std::numeric_limits<double>::quiet_NaN();
  }
}

}  // namespace krrdistill
