// The table of the stand-alone library: whichever BLAS and LAPACK it is linked with. The Python module has blas.cpp in
// its place, and fills that table with SciPy's functions.
#include <type_traits>

#include "common/blas_routines.h"
#include "krrdistill/blas.h"

// Fortran's symbols, with the signatures of the table's entries.
#define DECLARE(name)                                                             \
  std::remove_pointer_t<decltype(krrdistill::BlasTable<float>::name)> s##name##_; \
  std::remove_pointer_t<decltype(krrdistill::BlasTable<double>::name)> d##name##_;
extern "C" {
KRRDISTILL_BLAS_ROUTINES(DECLARE)
KRRDISTILL_LAPACK_ROUTINES(DECLARE)
}

namespace krrdistill {

#define SINGLE(name) .name = s##name##_,
#define DOUBLE(name) .name = d##name##_,

template <>
BlasTable<float>& blas() {
  static BlasTable<float> table{KRRDISTILL_BLAS_ROUTINES(SINGLE) KRRDISTILL_LAPACK_ROUTINES(SINGLE)};
  return table;
}

template <>
BlasTable<double>& blas() {
  static BlasTable<double> table{KRRDISTILL_BLAS_ROUTINES(DOUBLE) KRRDISTILL_LAPACK_ROUTINES(DOUBLE)};
  return table;
}

}  // namespace krrdistill
