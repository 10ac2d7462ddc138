// What the operations ask of their arguments, on the CPU and on a GPU alike: what memory safety needs. Each check
// returns the sizes that it found.
#pragma once

#include <cstdint>

#include "bindings/arrays.h"

namespace krrdistill::bindings {

inline void check_tile_rows(int64_t tile_rows) { require(tile_rows >= 1, "tile_rows must be at least 1"); }

template <typename T>
void check_features(const Array<T>& out, int64_t n, int64_t p) {
  require(out.ndim() == 2 && out.shape(0) == n && out.shape(1) == p, "out: (n, output_dim)");
  require_aligned(out);
}

inline int64_t check_gram(const Array<double>& gram, int64_t least = 0) {
  require(gram.ndim() == 2 && gram.shape(0) == gram.shape(1) && gram.shape(0) >= least, "gram: (p, p)");
  require_aligned(gram);
  return gram.shape(0);
}

inline void check_sums(const Array<double>& gram, const Array<double>& cross, int64_t p) {
  require(check_gram(gram) == p, "gram: (p, p)");
  require(cross.ndim() == 2 && cross.shape(1) == p, "cross: (k, p)");
  require_aligned(cross);
}

struct Models {
  int64_t count, k;
};

inline void check_scores(const Array<int64_t>& labels, int64_t models, int64_t k, const Array<int64_t>& correct,
                         int64_t rows_of_data) {
  require(k >= 1, "weights need at least one class");
  require(labels.ndim() == 1 && labels.shape(0) == rows_of_data, "labels: (n,)");
  require(correct.size() == models, "correct: (models,)");
  require_aligned(labels, correct);
}

template <typename T>
Models check_scores(const Array<int64_t>& labels, const Array<T>& weights, const Array<int64_t>& correct,
                    int64_t rows_of_data, int64_t p) {
  require(weights.ndim() == 3 && weights.shape(2) == p, "weights: (models, k, p)");
  require_aligned(weights);
  check_scores(labels, weights.shape(0), weights.shape(1), correct, rows_of_data);
  return {.count = weights.shape(0), .k = weights.shape(1)};
}

struct Path {
  int64_t p, k, lambdas;
};

inline Path check_path(int64_t p, const Array<double>& cross, const Array<double>& lambdas,
                       const Array<double>& weights, const Array<bool>& positive_definite,
                       const Array<bool>& resolved) {
  require(p >= 1, "gram: (p, p)");
  require(cross.ndim() == 2 && cross.shape(1) == p, "cross: (k, p)");
  const int64_t k = cross.shape(0), count = lambdas.size();
  require(weights.size() == count * k * p, "weights: (lambdas, k, p)");
  require(positive_definite.size() == count && resolved.size() == count, "positive_definite, resolved: (lambdas,)");
  require_aligned(cross, lambdas, weights);
  return {.p = p, .k = k, .lambdas = count};
}

struct Systems {
  int64_t batch, n, r;
};

template <typename T>
Systems check_systems(const Array<T>& a, const Array<T>& rhs) {
  require(a.ndim() == 3 && a.shape(1) == a.shape(2), "a: (batch, n, n)");
  require(rhs.ndim() == 3 && rhs.shape(0) == a.shape(0) && rhs.shape(2) == a.shape(1), "rhs: (batch, r, n)");
  require_aligned(a, rhs);
  return {.batch = a.shape(0), .n = a.shape(1), .r = rhs.shape(1)};
}

struct Preimages {
  int64_t p, d, m;
};

template <typename T>
Preimages check_preimages(const Array<T>& weight, const Array<double>& rhs, const Array<double>& x) {
  require(weight.ndim() == 2 && weight.shape(0) >= 1 && weight.shape(0) <= weight.shape(1), "weight: (p, d), p <= d");
  const int64_t p = weight.shape(0), d = weight.shape(1);
  require(rhs.ndim() == 2 && rhs.shape(1) == p, "rhs: (m, p)");
  require(x.ndim() == 2 && x.shape(0) == rhs.shape(0) && x.shape(1) == d, "x: (m, d)");
  require_aligned(weight, rhs, x);
  return {.p = p, .d = d, .m = rhs.shape(0)};
}

// The structured weight of preimages x (m, d) of rhs (m, p).
inline Hadamard<double> check_structured(const Array<double>& diagonals, const Array<double>& scale,
                                         const Array<double>& rhs, const Array<double>& x) {
  require(x.ndim() == 2, "x: (m, d)");
  const Hadamard<double> weight = make_hadamard(diagonals, scale, x.shape(1));
  require(rhs.ndim() == 2 && rhs.shape(0) == x.shape(0) && rhs.shape(1) == weight.outputs, "rhs: (m, p)");
  require_aligned(rhs, x);
  return weight;
}

// Booleans of NumPy as the core takes them.
inline unsigned char* flags(Array<bool>& array) { return reinterpret_cast<unsigned char*>(array.mutable_data()); }

}  // namespace krrdistill::bindings
