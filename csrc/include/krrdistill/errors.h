// Errors that the numerics can raise; of the functions that own their memory (distill.h, map.h) also DataError. The
// kernels' other arguments are checked by the caller.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace krrdistill {

// A Cholesky factorisation met a non-positive pivot: LAPACK info > 0.
struct NotPositiveDefinite : std::runtime_error {
  explicit NotPositiveDefinite(int64_t leading_minor)
      : std::runtime_error("leading minor " + std::to_string(leading_minor) +
                           " is not positive definite; raise lambda") {}
};

// A weight matrix has no right inverse to working precision.
struct NotSurjective : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// An input row holds NaN or infinity, or numbers that overflow the precision of the features.
struct NonFinite : std::runtime_error {
  explicit NonFinite(int64_t row_index)
      : std::runtime_error("row " + std::to_string(row_index) + " holds NaN or infinity, or overflows float32"),
        row(row_index) {}
  int64_t row;
};

// Samples, options or a file that cannot be used; the message says which, and the remedy. From distill.h and map.h
// only.
struct DataError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A call of the CUDA runtime, cuBLAS or cuSOLVER, or the launch of a kernel failed.
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The device, or the memory budget, is too small.
struct DeviceOutOfMemory : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace krrdistill
