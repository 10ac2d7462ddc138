// Element-wise kernels for instruction set "avx2"; the flags are in cmake/isa.cmake.
#include "cpu/elementwise_impl.h"

namespace krrdistill {

template <typename T>
const ElementwiseKernels<T>& elementwise_avx2() {
  static constexpr ElementwiseKernels<T> table = make_table<T>();
  return table;
}

template const ElementwiseKernels<float>& elementwise_avx2<float>();
template const ElementwiseKernels<double>& elementwise_avx2<double>();

}  // namespace krrdistill
