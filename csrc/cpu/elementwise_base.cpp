// Element-wise kernels for instruction set "base"; the flags are in cmake/isa.cmake.
#include "cpu/elementwise_impl.h"

namespace krrdistill {

template <typename T>
const ElementwiseKernels<T>& elementwise_base() {
  static constexpr ElementwiseKernels<T> table = make_table<T>();
  return table;
}

template const ElementwiseKernels<float>& elementwise_base<float>();
template const ElementwiseKernels<double>& elementwise_base<double>();

}  // namespace krrdistill
