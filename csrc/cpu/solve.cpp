#include "krrdistill/solve.h"

#include "common/checked_blas.h"
#include "krrdistill/errors.h"
#include "krrdistill/interrupt.h"

namespace krrdistill {

template <typename T>
void solve_spd(T* a, T* rhs, int64_t batch, int64_t n, int64_t r) {
  char uplo = 'L';
  int order = blas_int(n);
  int columns = blas_int(r);
  int ld = order > 0 ? order : 1;
  for (int64_t b = 0; b < batch; ++b) {
    check_interrupt();
    T* factor = a + b * n * n;
    int info = 0;
    blas<T>().potrf(&uplo, &order, factor, &ld, &info);
    check_info("potrf", info);
    if (info > 0) {
      throw NotPositiveDefinite(info);
    }
    blas<T>().potrs(&uplo, &order, &columns, factor, &ld, rhs + b * r * n, &ld, &info);
    check_info("potrs", info);
  }
}

template void solve_spd(float*, float*, int64_t, int64_t, int64_t);
template void solve_spd(double*, double*, int64_t, int64_t, int64_t);

}  // namespace krrdistill
