#include "krrdistill/distill.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "library/construct.h"
#include "library/dense.h"
#include "library/map_parts.h"
#include "library/require.h"
#include "library/train.h"

namespace krrdistill {
namespace {

using library::Json;
using library::Problem;
using library::require;
using library::Trained;

void check(const Problem& problem, int64_t count) {
  const DistillOptions& options = problem.options;
  const int64_t n = problem.X.n(), d = problem.X.d();
  require(d == problem.map.input_dim(), "distill: samples of " + std::to_string(d) + " entries, the map takes " +
                                            std::to_string(problem.map.input_dim()));
  require(n > 0 && n == count, "distill: " + std::to_string(n) + " samples and " + std::to_string(count) +
                                   " labels; both must be one a row");
  const int64_t most = std::numeric_limits<int64_t>::max() / 128 / std::max(d, problem.k) / problem.k;
  require(options.points_per_class > 0 && options.points_per_class <= most,
          "distill: points_per_class must be at least 1, and fit in memory");
  require(options.validation_fraction > 0.0 && options.validation_fraction < 1.0,
          "distill: validation_fraction must be between 0 and 1");
  int64_t entries = 1;
  for (const int64_t size : options.shape) {
    entries *= size;
  }
  require(options.shape.empty() || entries == d, "distill: shape has another number of entries than a sample");
  int64_t inputs = d;
  for (const auto& layer : problem.map.parts().layers) {
    if (layer.outputs > inputs) {
      throw NotSurjective("distill: a layer maps " + std::to_string(inputs) + " inputs to " +
                          std::to_string(layer.outputs) +
                          " features; an exact preimage needs at most as many "
                          "features as inputs (Python finds approximate points)");
    }
    inputs = layer.outputs;
  }
}

int64_t checked_classes(std::span<const int64_t> labels) {
  const int64_t n = std::ssize(labels);
  int64_t k = 0;
  for (const int64_t label : labels) {
    require(label >= 0 && label < n, "distill: label " + std::to_string(label) + ", expected classes 0 ... k - 1");
    k = std::max(k, label + 1);
  }
  std::vector<bool> present(k);
  for (const int64_t label : labels) {
    present[label] = true;
  }
  const auto absent = std::ranges::find(present, false);
  require(absent == present.end(),
          "distill: class " + std::to_string(absent - present.begin()) + " of " + std::to_string(k) + " has no sample");
  require(k >= 2, "distill: all samples have one class; there is nothing to tell apart");
  return k;
}

// How the set was made, as Python records it: `krrdistill verify` trains the original model again by it.
Json facts(const Problem& problem, const Trained& trained, const std::string& targets, double range_scale) {
  const DistillOptions& options = problem.options;
  const bool held_out = options.selection == Selection::held_out, classes = targets == "classes";
  const char* by = classes ? "accuracy" : "r2";
  const Json null;
  Json::Object chosen = {{"points_per_class", {options.points_per_class}},
                         {"init", {"noise"}},
                         {"noise", {"orthogonal"}},
                         {"lambda_s", {0.0}},
                         {"lambdas", null},
                         {"intercept", {false}},
                         {"center_targets", {false}},
                         {"lambda_per_target", {false}},
                         {"validation_fraction", {options.validation_fraction}},
                         {"selection", {held_out ? "held-out" : "gcv"}},
                         {"stratify", {true}},
                         {"refit", {false}},
                         {"seed", {options.seed}},
                         {"precision", {options.precision == Precision::float32 ? "float32" : "float64"}},
                         {"store", {"float64"}},
                         {"backend", {"native"}}};
  Json::Object out = {{"options", {std::move(chosen)}},
                      {"split", {true}},
                      {"weighted", {false}},
                      {"lambda", {trained.lambda}},
                      {"criterion", {held_out ? by : "gcv"}},
                      {"val_accuracy", held_out && classes ? Json{trained.score} : null},
                      {"n_train", {trained.n_train}},
                      {"n_val", {trained.n_validation}},
                      {"solution",
                       {Json::Object{{"method", {"exact"}},
                                     {"outside_range", null},
                                     {"range_scale", {range_scale}},
                                     {"range_dimension", {problem.map.output_dim()}}}}},
                      {"versions", {Json::Object{{"krrdistill", {KRRDISTILL_VERSION}}, {"language", {"C++"}}}}}};
  if (!trained.scores_per_target.empty()) {
    Json::Array scores;
    for (const double score : trained.scores_per_target) {
      scores.push_back({score});
    }
    out["val_r2"] = {std::move(scores)};
    out["lambda_per_target"] = null;
  }
  return {std::move(out)};
}

// Normal labels of real-valued targets, as large as those: k of them for each of points_per_class.
Matrix normal_labels(const std::vector<double>& spread, const DistillOptions& options) {
  const auto k = std::ssize(spread);
  Matrix out(options.points_per_class * k, k);
  out.values = library::normal(options.seed, library::Stream::labels, out.rows * k);
  for (int64_t i = 0; i < out.rows; ++i) {
    for (int64_t c = 0; c < k; ++c) {
      out(i, c) *= spread[c] > 0.0 ? spread[c] : 1.0;
    }
  }
  return out;
}

Distillation solve(const Problem& problem, const std::string& targets) {
  const DistillOptions& options = problem.options;
  Trained trained = library::train(problem);
  require(library::norm(trained.W.values) > 0.0,
          "distill: the original model is zero; the features of X carry nothing about y");
  Matrix labels = problem.labels != nullptr ? library::one_hot_labels(problem.k, options.points_per_class)
                                            : normal_labels(trained.spread, options);
  library::Construction made =
      library::construct(trained.W, std::move(labels), options.seed, problem.map.parts().feature_limit());
  const Json meta = facts(problem, trained, targets, made.range_scale);
  DistilledSet set{.map = problem.map,
                   .inputs = library::preimage(problem.map, std::move(made.F)),
                   .labels = std::move(made.Y),
                   .W = options.include_weights ? trained.W : Matrix(),
                   .intercept = {},
                   .target_offset = {},
                   .targets = targets,
                   .shape = options.shape.empty() ? std::vector<int64_t>{problem.X.d()} : options.shape,
                   .input_squares = {},
                   .meta = library::to_text(meta)};
  Model model{.map = problem.map, .W = std::move(trained.W), .b = std::vector<double>(problem.k)};
  const double error = set.verify(model).weight_error;
  return {.distilled = std::move(set),
          .model = std::move(model),
          .lambda = trained.lambda,
          .score = trained.score,
          .n_train = trained.n_train,
          .weight_error = error};
}

}  // namespace

Distillation distill(const Samples& X, std::span<const int64_t> labels, const Map& map, const DistillOptions& options) {
  const Problem problem{
      .X = X, .labels = labels.data(), .values = nullptr, .k = checked_classes(labels), .map = map, .options = options};
  check(problem, std::ssize(labels));
  return solve(problem, "classes");
}

Distillation distill(const Samples& X, const Matrix& targets, const Map& map, const DistillOptions& options) {
  const Problem problem{
      .X = X, .labels = nullptr, .values = &targets, .k = targets.columns, .map = map, .options = options};
  check(problem, targets.rows);
  require(targets.columns > 0 && library::all_finite(targets.values), "distill: targets hold NaN or infinity, or none");
  const bool binary = std::ranges::all_of(targets.values, [](double y) { return y == 0.0 || y == 1.0; });
  return solve(problem, binary ? "multilabel" : "real");
}

}  // namespace krrdistill
