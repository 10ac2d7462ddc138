// Element-wise kernels for instruction set "avx512"; the flags are in cmake/isa.cmake.
#include "cpu/elementwise_impl.h"

namespace krrdistill {

template <typename T>
const ElementwiseKernels<T>& elementwise_avx512() {
  static constexpr ElementwiseKernels<T> table = make_table<T>();
  return table;
}

template const ElementwiseKernels<float>& elementwise_avx512<float>();
template const ElementwiseKernels<double>& elementwise_avx512<double>();

}  // namespace krrdistill
