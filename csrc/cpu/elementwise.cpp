// Chooses the table of element-wise kernels; the kernels are in elementwise_impl.h.
#include "krrdistill/elementwise.h"

#include "cpu/elementwise_tables.h"
#include "krrdistill/isa.h"

namespace krrdistill {

template <typename T>
const ElementwiseKernels<T>& elementwise() {
  switch (current_isa()) {
#ifdef KRRDISTILL_WITH_AVX512
    case Isa::amx:
    case Isa::avx512:
      return elementwise_avx512<T>();
#endif
#ifdef KRRDISTILL_WITH_AVX2
    case Isa::avx2:
      return elementwise_avx2<T>();
#endif
    default:
      return elementwise_base<T>();
  }
}

template const ElementwiseKernels<float>& elementwise<float>();
template const ElementwiseKernels<double>& elementwise<double>();

}  // namespace krrdistill
