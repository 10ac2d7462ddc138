// Dense float64 matrices, and what is done with them between statistics and points. Operands are of the host or stay in
// memory of the device from one operation to the next. As in operations.h no CUDA type appears here.
#pragma once

#include <cstdint>
#include <memory>

#include "cuda/operations.h"

namespace krrdistill::cuda {

// A matrix, contiguous by rows or by columns. One in memory of the device is ready on every stream.
struct Operand {
  const double* data = nullptr;
  int64_t rows = 0;
  int64_t columns = 0;
  bool by_columns = false;
  bool on_device = false;

  [[nodiscard]] int64_t size() const { return rows * columns; }
  [[nodiscard]] int64_t row_stride() const { return by_columns ? 1 : columns; }
  [[nodiscard]] int64_t column_stride() const { return by_columns ? rows : 1; }
};

// A matrix for operations of this context, which lives as long as it.
using Resident = std::shared_ptr<double>;

// Results go to `out` on the host, and null is returned; for a null `out` they stay on the device.

// A copy.
Resident place(Context& context, const Operand& a);
void fetch(Context& context, const Operand& a, double* out);

// A B (m, r), by rows
Resident multiply(Context& context, const Operand& a, const Operand& b, double* out);

// A A^T (m, m)
Resident gram_of(Context& context, const Operand& a, double* out);

// A + shift I = L L^T for a symmetric A (n, n).
struct Factor {
  Resident lower;     // L by columns; its upper triangle is anything. Null where A + shift I is not positive definite
  double norm = 0.0;  // ||A + shift I||_1
};
Factor cholesky(Context& context, const Operand& a, double shift);

// A = V diag(values) V^T for a symmetric A (n, n): values (n) on the host, ascending, V by columns.
Resident eigenvectors(Context& context, const Operand& a, double* values);

// (L L^T)^-1 B, as B is contiguous; factor holds L (n, n) by columns, its upper triangle is not read.
Resident solve_factored(Context& context, const Operand& factor, const Operand& b, double* out);

// alpha A + beta B by rows or columns, as A; B has the shape of A, or it is one row, which is added to each of A.
Resident combine(Context& context, double alpha, const Operand& a, double beta, const Operand& b);

// A = alpha A + beta B in the place of A on the device
void combine_into(Context& context, double alpha, const Operand& a, double beta, const Operand& b);

// A diag(factors), as A
Resident scale_columns(Context& context, const Operand& a, const double* factors);

// max |A_ij|, NaN where one of them is
double largest_magnitude(Context& context, const Operand& a);

// Out (rows, columns) whose last `chosen` rows and `odd` columns hold +-table[frequency_i (2 j + 1) mod 4 order],
// `flat` in the place of the table where the frequency is 0, with the signs of row i and column j; zero elsewhere.
struct Cosines {
  const double* table;  // (4 order)
  const int64_t* frequencies;
  const int8_t* row_signs;
  const int8_t* column_signs;
  int64_t order;
  int64_t chosen;
  int64_t odd;
  double flat;
};
Resident cosines(Context& context, const Cosines& cosines, int64_t rows, int64_t columns);

// T - B by rows, where act(T) = H, of the angles with this cosine the one nearest to B; B as in combine.
Resident undo_activation(Context& context, Activation activation, double parameter, const Operand& h, const Operand& b);

// As preimage_solve, hadamard_solve of right sides by rows on the device, where x (rows, d) stays; it is undefined
// where rcond is below the floor.
struct Preimages {
  Resident x;
  double rcond = 0.0;
};
template <typename T>
Preimages preimages_here(Context& context, const T* weight, const Operand& rhs, int64_t d, double rcond_floor);
Resident hadamard_preimages_here(Context& context, const Hadamard<double>& a, const Operand& rhs);

}  // namespace krrdistill::cuda
