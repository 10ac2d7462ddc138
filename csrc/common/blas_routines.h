// The names of all entries of BlasTable, for what treats them alike: filling the table and declaring what is linked.
#pragma once

#include <cstddef>

#include "krrdistill/blas.h"

#define KRRDISTILL_BLAS_ROUTINES(apply) apply(gemm) apply(syrk) apply(symm) apply(syr2k) apply(symv)

#define KRRDISTILL_LAPACK_ROUTINES(apply)                                                                              \
  apply(potrf) apply(potrs) apply(geqrt) apply(larft) apply(pbtrf) apply(pbtrs) apply(getrf) apply(getrs) apply(gecon) \
      apply(geqrf) apply(ormqr) apply(trtrs) apply(trcon)

namespace krrdistill {

// NOLINTNEXTLINE(bugprone-macro-parentheses): a term of a sum
#define KRRDISTILL_COUNT(name) +1
static_assert(sizeof(BlasTable<float>) / sizeof(void*) ==
                  size_t{0 KRRDISTILL_BLAS_ROUTINES(KRRDISTILL_COUNT) KRRDISTILL_LAPACK_ROUTINES(KRRDISTILL_COUNT)},
              "an entry of BlasTable is missing from these lists");
#undef KRRDISTILL_COUNT

}  // namespace krrdistill
