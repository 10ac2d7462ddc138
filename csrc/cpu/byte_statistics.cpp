// Statistics of bytes u under phi = a u + b, from sums of integers. With c = u - 128 and phi = a c + b', over n rows
//
//     n sum phi_i phi_j = a_i a_j (n M_ij - S_i S_j) + F_i F_j,
//     M = sum c c^T,   S = sum c,   F = sum phi = a S + n b'.
//
// The bracket, n^2 times a covariance, is an integer under 2^47 and so exact in double: a mean that is large beside the
// deviation costs nothing.
#include "cpu/byte_statistics.h"

#include <algorithm>

#include "common/checked_size.h"
#include "cpu/byte_gram.h"
#include "krrdistill/interrupt.h"

namespace krrdistill {
namespace {

// The sums over at most byte_sum_rows rows, and the p-vectors of the formula above.
struct Sums {
  double* packed;    // the workspace of byte_gram
  int32_t* gram;     // M
  double* scale;     // a
  double* shift;     // b'
  double* bytes;     // S
  double* features;  // F
  int64_t* counts;   // of rows per class, (classes)
  int32_t* classes;  // S of each class, (classes, p)

  Sums(double* memory, int64_t p, int64_t k)
      : packed(memory),
        gram(reinterpret_cast<int32_t*>(packed + byte_gram_workspace(p))),
        scale(reinterpret_cast<double*>(gram + byte_gram_order(p) * byte_gram_order(p))),
        shift(scale + p),
        bytes(shift + p),
        features(bytes + p),
        counts(reinterpret_cast<int64_t*>(features + p)),
        classes(reinterpret_cast<int32_t*>(counts + k)) {}
};

// Real-valued targets, any number of them, count as one class: their products with the features are another matter.
int64_t classes_of(const Targets& targets) { return targets.labels == nullptr ? 1 : targets.k; }

int64_t label_of(const Input& input, const Targets& targets, int64_t i) {
  return targets.labels == nullptr ? 0 : targets.label(input, i);
}

// Every thread owns its columns.
void add_class_sums(const Input& input, const Targets& targets, int64_t first, int64_t count, int64_t p,
                    const Sums& sums) {
  constexpr int64_t columns = 256;
#pragma omp parallel for schedule(static)
  for (int64_t column = 0; column < p; column += columns) {
    const int64_t end = std::min(column + columns, p);
    for (int64_t i = first; i < first + count; ++i) {
      const uint8_t* row = input_bytes(input, i);
      int32_t* sum = sums.classes + label_of(input, targets, i) * p;
      for (int64_t j = column; j < end; ++j) {
        sum[j] += row[j] - byte_centre;
      }
    }
  }
  for (int64_t i = first; i < first + count; ++i) {
    ++sums.counts[label_of(input, targets, i)];
  }
}

void set_vectors(const FeatureMap<double>& map, int64_t n, int64_t k, const Sums& sums) {
  const int64_t p = map.input_dim;
  for (int64_t j = 0; j < p; ++j) {
    int64_t total = 0;
    for (int64_t label = 0; label < k; ++label) {
      total += sums.classes[label * p + j];
    }
    sums.scale[j] = map.scale == nullptr ? 1.0 : map.scale[j];
    sums.shift[j] = (map.shift == nullptr ? 0.0 : map.shift[j]) + byte_centre * sums.scale[j];
    sums.bytes[j] = static_cast<double>(total);
    sums.features[j] = sums.scale[j] * sums.bytes[j] + static_cast<double>(n) * sums.shift[j];
  }
}

void add_gram(const Sums& sums, int64_t rows, int64_t p, double* gram) {
  const int64_t ld = byte_gram_order(p);
  const auto n = static_cast<double>(rows);
#pragma omp parallel for schedule(dynamic, 64)
  for (int64_t i = 0; i < p; ++i) {
    const double a = sums.scale[i], s = sums.bytes[i], f = sums.features[i];
    for (int64_t j = 0; j <= i; ++j) {
      const double covariance = n * sums.gram[i * ld + j] - s * sums.bytes[j];
      gram[i * p + j] += (a * sums.scale[j] * covariance + f * sums.features[j]) / n;
    }
  }
}

void add_cross(const Sums& sums, int64_t p, int64_t k, double* cross) {
  for (int64_t label = 0; label < k; ++label) {
    const auto count = static_cast<double>(sums.counts[label]);
    for (int64_t j = 0; j < p; ++j) {
      cross[label * p + j] += sums.scale[j] * sums.classes[label * p + j] + count * sums.shift[j];
    }
  }
}

}  // namespace

int64_t byte_statistics_workspace(int64_t p, int64_t k) {
  const int64_t order = byte_gram_order(p), classes = std::max<int64_t>(k, 1);
  return checked_sum(byte_gram_workspace(p), checked_product(order, order) / 2, checked_product(4, p), classes,
                     checked_sum(checked_product(classes, p), 1) / 2);
}

void accumulate_bytes(const FeatureMap<double>& map, const Input& input, const Targets& targets, double* gram,
                      double* cross, double* workspace) {
  const int64_t p = map.input_dim;
  const int64_t k = classes_of(targets);
  const Sums sums(workspace, p, k);
  for (int64_t start = 0; start < input.n; start += byte_sum_rows) {
    const int64_t end = std::min(start + byte_sum_rows, input.n);
    std::fill_n(sums.gram, byte_gram_order(p) * byte_gram_order(p), 0);
    std::fill_n(sums.counts, k, 0);
    std::fill_n(sums.classes, k * p, 0);
    for (int64_t first = start; first < end; first += byte_block_rows()) {
      check_interrupt();
      const int64_t count = std::min(byte_block_rows(), end - first);
      byte_gram(input, first, count, p, sums.gram, sums.packed);
      add_class_sums(input, targets, first, count, p, sums);
    }
    set_vectors(map, end - start, k, sums);
    add_gram(sums, end - start, p, gram);
    if (targets.labels != nullptr) {
      add_cross(sums, p, k, cross);
    }
  }
}

}  // namespace krrdistill
