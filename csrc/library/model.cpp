// Models, and what a distilled set retrains to.
#include <algorithm>
#include <cmath>
#include <utility>

#include "krrdistill/distill.h"
#include "library/dense.h"
#include "library/map_parts.h"
#include "library/require.h"
#include "library/retrain.h"

namespace krrdistill {
namespace {

using library::product;
using library::require;
using library::Use;

// F W^T + b, (m, k).
Matrix scores_of(const Matrix& F, const Model& model) {
  Matrix out = product(F, model.W, Use::plain, Use::transposed);
  for (int64_t i = 0; i < out.rows; ++i) {
    for (int64_t c = 0; c < out.columns; ++c) {
      out(i, c) += model.b[c];
    }
  }
  return out;
}

std::vector<double> difference(const std::vector<double>& a, const std::vector<double>& b) {
  std::vector<double> out(a.size());
  std::ranges::transform(a, b, out.begin(), std::minus<>());
  return out;
}

double relative(double error, double scale) {
  return error > 0.0 ? error / scale : 0.0;  // infinite for a scale of 0
}

// Norm of the standard deviations of the columns.
double spread(const Matrix& A) {
  const std::vector<double> mean = library::column_means(A);
  double square = 0.0;
  for (int64_t i = 0; i < A.rows; ++i) {
    for (int64_t c = 0; c < A.columns; ++c) {
      square += (A(i, c) - mean[c]) * (A(i, c) - mean[c]) / static_cast<double>(A.rows);
    }
  }
  return std::sqrt(square);
}

Model retrained(const DistilledSet& set, const Matrix& F) {
  if (!set.centered) {
    std::vector<double> b = set.target_offset;
    b.resize(set.labels.columns);
    return {.map = set.map, .W = library::fit_features(F, set.labels, set.lambda_s), .b = std::move(b)};
  }
  require(F.rows > 1, "fit: an intercept needs two points");
  Matrix W = library::fit_features(library::contrasts(F), library::contrasts(set.labels), set.lambda_s);
  Matrix mean(1, F.columns);
  mean.values = library::column_means(F);
  std::vector<double> b =
      difference(library::column_means(set.labels), product(mean, W, Use::plain, Use::transposed).values);
  return {.map = set.map, .W = std::move(W), .b = std::move(b)};
}

}  // namespace

Matrix Model::scores(const Samples& X) const { return scores_of(map.transform(X), *this); }

std::vector<int64_t> Model::predict(const Samples& X) const {
  const Matrix found = scores(X);
  std::vector<int64_t> out(found.rows);
  for (int64_t i = 0; i < found.rows; ++i) {
    out[i] = std::max_element(found.row(i), found.row(i) + found.columns) - found.row(i);
  }
  return out;
}

double Model::accuracy(const Samples& X, std::span<const int64_t> labels) const {
  require(std::ssize(labels) == X.n() && !labels.empty(), "accuracy: there must be one label for each sample");
  const std::vector<int64_t> found = predict(X);
  const auto hits =
      std::ranges::count_if(found, [&](const int64_t& label) { return label == labels[&label - found.data()]; });
  return static_cast<double>(hits) / static_cast<double>(X.n());
}

Matrix DistilledSet::raw() const {
  const Preprocessing& before = map.parts().preprocessing;
  Matrix out = inputs;
  for (int64_t i = 0; i < out.rows; ++i) {
    for (int64_t j = 0; j < out.columns; ++j) {
      out(i, j) = out(i, j) * before.unit[j] + before.origin[j];
    }
  }
  return out;
}

Model DistilledSet::fit() const { return retrained(*this, library::features(map, inputs)); }

Certificate DistilledSet::verify(const std::optional<Model>& original) const {
  require(original.has_value() || !W.empty(),
          "verify: the set does not hold the original model (include_weights): pass it");
  std::vector<double> b = centered ? intercept : target_offset;
  b.resize(labels.columns);
  const Model model = original.has_value() ? *original : Model{.map = map, .W = W, .b = std::move(b)};
  require(model.W.rows == labels.columns && model.W.columns == map.output_dim() &&
              std::ssize(model.b) == labels.columns && model.map.fingerprint() == map.fingerprint(),
          "verify: the model is of another feature map, or other targets, than the set");
  const Matrix F = library::features(map, inputs);
  const Model found = retrained(*this, F);
  const double scale = std::max(library::norm(model.b), spread(scores_of(F, model)));
  return {.weight_error = std::max(
              relative(library::norm(difference(found.W.values, model.W.values)), library::norm(model.W.values)),
              relative(library::norm(difference(found.b, model.b)), scale)),
          .condition = library::condition_number(F)};
}

}  // namespace krrdistill
