#include "krrdistill/solve.h"

#include <algorithm>

#include "common/checked_blas.h"
#include "common/threads.h"
#include "krrdistill/errors.h"
#include "krrdistill/interrupt.h"

namespace krrdistill {
namespace {

// Operations up to which systems are solved beside each other; larger ones take all threads of BLAS, one by one. The
// Python layer gives BLAS one thread for smaller ones (common/threads.py).
constexpr double alone = 2e8;

// LAPACK's info of the factorisation, 0 where the system was solved.
template <typename T>
int solve_one(T* factor, T* rhs, int order, int columns) {
  char uplo = 'L';
  int ld = std::max(order, 1), info = 0;
  blas<T>().potrf(&uplo, &order, factor, &ld, &info);
  if (info == 0) {
    blas<T>().potrs(&uplo, &order, &columns, factor, &ld, rhs, &ld, &info);
  }
  return info;
}

}  // namespace

// So many at a time that an interrupt is noticed between.
template <typename T>
void solve_spd(T* a, T* rhs, int64_t batch, int64_t n, int64_t r) {
  const int order = blas_int(n), columns = blas_int(r);
  const bool small =
      static_cast<double>(n) * static_cast<double>(n) * (static_cast<double>(n) / 3 + 2 * static_cast<double>(r)) <=
      alone;
  const int64_t step = small ? 16 * max_threads() : 1;
  for (int64_t first = 0; first < batch; first += step) {
    check_interrupt();
    const int64_t end = std::min(first + step, batch);
    int64_t failed = end;  // the first of them that has no solution
    int reason = 0;
#pragma omp parallel for schedule(dynamic, 1) if (end - first > 1)
    for (int64_t b = first; b < end; ++b) {
      const int info = solve_one(a + b * n * n, rhs + b * r * n, order, columns);
      if (info != 0) {
#pragma omp critical(krrdistill_solve_spd)
        if (b < failed) {
          failed = b;
          reason = info;
        }
      }
    }
    check_info("potrf", reason);
    if (reason > 0) {
      throw NotPositiveDefinite(reason);
    }
  }
}

template void solve_spd(float*, float*, int64_t, int64_t, int64_t);
template void solve_spd(double*, double*, int64_t, int64_t, int64_t);

}  // namespace krrdistill
