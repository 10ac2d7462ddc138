// Distillation as one call: labelled samples to a few points that ridge regression retrains to the same model from, and
// the file of them (docs/reference/file-format.md), which Python reads and writes as well. These functions own their
// memory; all refuse with DataError what cannot be used: wrong shapes, NaN, a class without samples, damaged files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "krrdistill/errors.h"
#include "krrdistill/map.h"
#include "krrdistill/matrix.h"

namespace krrdistill {

// By what lambda is chosen: by samples held out (accuracy; of real-valued targets R^2), or by generalised
// cross-validation, which holds nothing out.
enum class Selection : uint8_t { held_out, gcv };

// Of features and products in the pass over the data; sums are double in both.
enum class Precision : uint8_t { float32, float64 };

// The defaults are those of Python. Every member has an initializer: GCC warns of designated initializers otherwise.
// NOLINTBEGIN(readability-redundant-member-init)
struct DistillOptions {
  int64_t points_per_class = 1;
  uint64_t seed = 0;                 // of the split and the noise
  std::vector<double> lambdas = {};  // > 0; empty: 10^-6 ... 10^5.5 in half decades
  Selection selection = Selection::held_out;
  double validation_fraction = 0.05;  // of the samples, the same part of every class
  Precision precision = Precision::float32;
  bool include_weights = false;     // the file has the original model, too
  std::vector<int64_t> shape = {};  // of a sample, for who reads the file: (h, w), (h, w, channels); by default (d)
};
// NOLINTEND(readability-redundant-member-init)

// Predictions W phi(x) + b.
struct Model {
  Map map;
  Matrix W;               // (k, p)
  std::vector<double> b;  // (k,)

  [[nodiscard]] Matrix scores(const Samples& X) const;                 // (n, k)
  [[nodiscard]] std::vector<int64_t> predict(const Samples& X) const;  // (n,), of the largest score, first of equals
  [[nodiscard]] double accuracy(const Samples& X, std::span<const int64_t> labels) const;
};

// How exactly the model retrained from a set is the original one.
struct Certificate {
  double weight_error = 0.0;  // ||W_S - W|| / ||W||; of a set with an intercept at least ||b_S - b|| / max(||b||,
                              // ||s||), s the standard deviations of the original's scores of the points
  double condition = 0.0;     // s_1 / s_min of the distilled features
};

struct DistilledSet {
  Map map;
  Matrix inputs;                      // (m, d), standardised: raw() has them in the units of the samples
  Matrix labels;                      // (m, k), one-hot for classes times the scale that the map's range needs
  double lambda_s = 0.0;              // the (absolute) ridge parameter to train with
  Matrix W;                           // (k, p), the original model, or empty
  std::vector<double> intercept;      // of the original, with W where `centered`; else empty
  std::vector<double> target_offset;  // added to predictions, or empty
  bool centered = false;              // train with an unpenalised intercept
  std::string targets = "classes";    // or "real", "multilabel" (0 and 1): what the columns of labels are
  std::vector<int64_t> shape;         // of one raw sample
  double input_count = 0.0;           // of maps without preprocessing: samples whose squares were summed, 0 for none
  std::vector<double> input_squares;  // (d,), those sums: by them Python tells samples in other units
  std::string meta = "{}";            // JSON: how the set was made (docs/reference/file-format.md)

  [[nodiscard]] Matrix raw() const;  // (m, d)
  // W_S = Y^T (F F^T + lambda_s I)^-1 F with F = phi(X), Y^T (F^+)^T for lambda_s = 0.
  [[nodiscard]] Model fit() const;
  // Against the original; without one against the W that the file has. Throws DataError where it has none.
  [[nodiscard]] Certificate verify(const std::optional<Model>& original = std::nullopt) const;

  // Writes a file under a temporary name and renames it: nobody sees half of one. The same set gives the same bytes.
  // The map's weights are stored where they are at most 2^20 numbers; else, or by `embed_map`, its seed alone.
  void save(const std::filesystem::path& path, std::optional<bool> embed_map = std::nullopt) const;
  // Nothing larger than the file is allocated before all that it says of sizes was checked. Reads maps of dense layers:
  // identity, random_fourier, FCNN, deep_linear.
  static DistilledSet load(const std::filesystem::path& path);
};

struct Distillation {
  DistilledSet distilled;
  Model model;          // the original: ridge regression on the samples, without an intercept
  double lambda = 0.0;  // its ridge parameter
  double score = 0.0;   // accuracy or mean R^2 on the held-out samples; of GCV its value
  int64_t n_train = 0;
  double weight_error = 0.0;  // of the model retrained from the set: what rounding has left
};

// points_per_class points of each class that retrain to the ridge model of X: W = C (G + lambda I)^-1 from one pass, D
// with Y^T D = W from noise of the least condition number (Theorem 4.1), inputs by the map's exact preimage (Theorem
// 5.1); lambda_s = 0. Same data, map and options as Python: the same points, up to rounding.
// labels (n,): classes 0 ... k - 1, each with a sample. Throws DataError; NotSurjective for a map with more features
// than inputs, which has no exact preimage.
Distillation distill(const Samples& X, std::span<const int64_t> labels, const Map& map,
                     const DistillOptions& options = {});
// targets (n, k), real-valued: points_per_class k points with normal labels.
Distillation distill(const Samples& X, const Matrix& targets, const Map& map, const DistillOptions& options = {});

}  // namespace krrdistill
