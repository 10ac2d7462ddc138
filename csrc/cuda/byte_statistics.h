// Statistics of bytes under a map without layers from sums of integers, as csrc/cpu/byte_statistics.cpp has them, with
// the same bits: u - 128 as int8, transposed, products by integer tensor cores, one affine step in float64.
#pragma once

#include <cstdint>

#include "cuda/runtime.h"

namespace krrdistill::cuda {

class ByteStatistics {
 public:
  static constexpr int64_t period = 65536;  // rows of one sum, as on the CPU: half of what int32 holds

  // Device memory: bytes of it for whatever number of rows, and for each row of a tile.
  static int64_t fixed_bytes(int64_t p, int64_t k);
  static int64_t row_bytes(int64_t p);

  // scale, shift (p) in host memory, or null; k classes; tiles of at most `rows` rows.
  ByteStatistics(Scope& scope, const double* scale, const double* shift, int64_t p, int64_t k, int64_t rows);

  // Takes rows of bytes with stride pitch(p). `sorted`, as of class_sums, or null: all rows are of one class.
  void add(const std::byte* rows, int64_t count, const int* sorted);

  // gram += on the lower triangle, cross (k, p) += unless it is null; then the sums start again.
  void flush(double* gram, double* cross);

  [[nodiscard]] int64_t pending() const { return pending_; }

 private:
  void clear();

  Scope& scope_;
  int64_t p_;
  int64_t classes_;
  int64_t order_;        // byte_order(p)
  int64_t ld_;           // of the transposed tile
  int64_t pending_ = 0;  // rows in the sums
  const double* scale_ = nullptr;
  const double* shift_ = nullptr;
  int8_t* transposed_;  // (order, ld)
  int32_t* gram_;       // M, (order, order)
  int32_t* sums_;       // S of each class, (classes, p)
  int32_t* counts_;     // (classes)
  double* vectors_;     // a, b', S and F, (4, p)
};

}  // namespace krrdistill::cuda
