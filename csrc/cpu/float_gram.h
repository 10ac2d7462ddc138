// G of float32 rows on one thread, by products whose sums stay in registers. BLAS packs a matrix once for each side of
// a product; of few columns that is a tenth of its work. Here rows are packed once, as they come.
#pragma once

#include <cstdint>
#include <functional>

namespace krrdistill {

class FloatGram {
 public:
  // Rows that are multiplied at a time: two panels of them fit an L1 cache, all panels of 1024 columns an L2 cache.
  static constexpr int64_t depth = 192;
  // Called before each of the products of so many rows, with its number and how many there are.
  using Meanwhile = std::function<void(int64_t product, int64_t products)>;

  static bool available();              // for this CPU and the current instruction set
  static int64_t workspace(int64_t p);  // floats

  FloatGram(int64_t p, float* workspace, Meanwhile meanwhile);
  // G += rows^T rows, for rows (count, p), row-major.
  void add(const float* rows, int64_t count);
  // gram (p, p) += G, in double, on the lower triangle in row-major order; G = 0.
  void move_to(double* gram);

 private:
  void multiply();

  int64_t p_;
  int64_t packed_ = 0;  // rows in the panels
  float* panels_;
  float* sums_;  // blocks of the lower triangle, row by row
  Meanwhile meanwhile_;
};

}  // namespace krrdistill
