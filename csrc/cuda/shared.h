// Shared memory: one array per block, whose size the launch gives.
#pragma once

#include <cuda_runtime.h>

namespace krrdistill::cuda {

extern __shared__ __align__(32) unsigned char shared_bytes[];  // as fragments of matrices want it

template <typename T>
__device__ inline T* shared_memory() {
  return reinterpret_cast<T*>(shared_bytes);
}

}  // namespace krrdistill::cuda
