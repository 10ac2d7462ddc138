// The tables that the per-ISA translation units define.
#pragma once

#include "krrdistill/elementwise.h"

namespace krrdistill {

template <typename T>
const ElementwiseKernels<T>& elementwise_base();
template <typename T>
const ElementwiseKernels<T>& elementwise_avx2();
template <typename T>
const ElementwiseKernels<T>& elementwise_avx512();

}  // namespace krrdistill
