#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

template <typename T>
Hadamard<T> upload(Scope& scope, const Hadamard<T>& a);

// Row i of out (count, stride pitch(outputs)) = A x_i, x (count, stride pitch(inputs)), which may be overwritten.
template <typename T>
void hadamard_apply(cudaStream_t stream, const Hadamard<T>& a, T* x, T* out, int64_t count);

}  // namespace krrdistill::cuda
