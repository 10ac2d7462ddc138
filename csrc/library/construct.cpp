#include "library/construct.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "library/dense.h"
#include "library/random.h"
#include "library/require.h"

namespace krrdistill::library {
namespace {

constexpr double rank_cutoff = 1e-10;  // singular values of A under it, relative to the largest, are rounding

// E (rows, columns) with orthonormal rows or columns, whichever are fewer, in the lower right corner of zeros (m, p):
// E_ij = +- sqrt(2 / M) cos(pi (2 j + 1) i / (2 M)), M = max(rows, columns), rows in a random order, random signs.
Matrix corner_of_noise(int64_t m, int64_t p, int64_t rows, int64_t columns, uint64_t seed) {
  const int64_t order = std::max(rows, columns);
  const std::vector<int64_t> frequencies = permutation(seed, Stream::noise_order, order);
  const std::vector<double> drawn = signs(seed, Stream::noise_signs, rows + columns);
  std::vector<double> table(4 * order);
  for (int64_t i = 0; i < 4 * order; ++i) {
    table[i] = std::sqrt(2.0 / static_cast<double>(order)) *
               std::cos(std::numbers::pi / (2.0 * static_cast<double>(order)) * static_cast<double>(i));
  }
  Matrix out(m, p);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t frequency = frequencies[i];
    double* row = out.row(m - rows + i) + (p - columns);
    for (int64_t j = 0; j < columns; ++j) {
      const double value =
          frequency == 0 ? 1.0 / std::sqrt(static_cast<double>(order)) : table[frequency * (2 * j + 1) % (4 * order)];
      row[j] = drawn[i] * drawn[rows + j] * value;
    }
  }
  return out;
}

}  // namespace

Matrix one_hot_labels(int64_t k, int64_t points_per_class) {
  Matrix Y(k * points_per_class, k);
  for (int64_t i = 0; i < Y.rows; ++i) {
    Y(i, i % k) = 1.0;
  }
  return Y;
}

Construction construct(const Matrix& W, Matrix Y, uint64_t seed, double feature_limit) {
  const int64_t m = Y.rows, k = Y.columns, p = W.columns;
  const Qr labels = qr(Y);
  // A product with R^-T, not a solve: a column of zeros of W, of a constant input, stays +0, and so does the sign of
  // the reflection that it decides.
  const Matrix Q = labels.q(), A = product(labels.inverse_rt(), W);
  const Svd parts = svd(A);
  const int64_t r = rank(parts.values, rank_cutoff);
  Matrix left = product(Q, parts.left);  // (m, min(k, p)), columns over their singular values, 0 where those count as 0
  double square = 0.0;
  for (int64_t j = 0; j < left.columns; ++j) {
    for (int64_t i = 0; i < m; ++i) {
      left(i, j) = j < r ? left(i, j) / parts.values[j] : 0.0;
    }
    square += j < r ? parts.values[j] * parts.values[j] / static_cast<double>(r) : 0.0;
  }
  Matrix F = product(left, parts.right);
  const int64_t rows = m - k, columns = p - k;
  if (std::min(rows, columns) > 0) {
    Matrix noise = corner_of_noise(m, p, rows, columns, seed);
    qr(transpose(A)).reflect_columns(noise);
    qr(Q).reflect_rows(noise);
    const double scale = std::sqrt(square);
    for (size_t i = 0; i < F.values.size(); ++i) {
      F.values[i] += noise.values[i] / scale;
    }
  }
  const auto [least, largest] = std::ranges::minmax(F.values);
  const double size = std::max(largest, -least);
  const double scale = size <= feature_limit ? 1.0 : feature_limit / size * (1.0 - 1e-12);
  for (Matrix* each : {&F, &Y}) {
    std::ranges::for_each(each->values, [&](double& value) { value *= scale; });
  }
  return {.F = std::move(F), .Y = std::move(Y), .range_scale = scale};
}

}  // namespace krrdistill::library
