// G that stays in memory of the device between operations: only its lower triangle is kept up, until someone asks.
#pragma once

#include <cstdint>
#include <memory>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

// The upper triangle of gram (p, p) on the device becomes the mirror of the lower one.
void mirror(cudaStream_t stream, double* gram, int64_t p);

}  // namespace krrdistill::cuda
