// A matrix of doubles that owns its memory: what distill.h takes and returns.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace krrdistill {

struct Matrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<double> values;  // row-major

  Matrix() = default;
  Matrix(int64_t m, int64_t n) : rows(m), columns(n), values(static_cast<size_t>(m) * static_cast<size_t>(n)) {}

  [[nodiscard]] bool empty() const { return values.empty(); }
  [[nodiscard]] double* row(int64_t i) { return values.data() + i * columns; }
  [[nodiscard]] const double* row(int64_t i) const { return values.data() + i * columns; }
  [[nodiscard]] double& operator()(int64_t i, int64_t j) { return values[i * columns + j]; }
  [[nodiscard]] double operator()(int64_t i, int64_t j) const { return values[i * columns + j]; }
};

}  // namespace krrdistill
