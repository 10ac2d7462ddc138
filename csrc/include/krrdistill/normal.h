// Random bits to normally distributed numbers, with the same result to the last bit on every machine.
#pragma once

#include <cstdint>

namespace krrdistill {

// out[i] = Phi^-1((b_i + 1/2) 2^-52) with b_i the upper 52 bits of bits[i] (algorithm AS 241). Only IEEE operations
// that round alike everywhere, in the order of krrdistill.common.random, which is the reference. `out` may be the
// memory of `bits`.
void normal_from_bits(const uint64_t* bits, double* out, int64_t n);

}  // namespace krrdistill
