// The table of the Python module: empty until bindings/scipy_blas.cpp fills it at import.
#include "krrdistill/blas.h"

namespace krrdistill {

template <typename T>
BlasTable<T>& blas() {
  static BlasTable<T> table;
  return table;
}

template BlasTable<float>& blas<float>();
template BlasTable<double>& blas<double>();

}  // namespace krrdistill
