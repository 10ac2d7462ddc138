#include "library/train.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <type_traits>

#include "krrdistill/degrees_of_freedom.h"
#include "krrdistill/ridge.h"
#include "krrdistill/score.h"
#include "library/dense.h"
#include "library/map_parts.h"
#include "library/require.h"

namespace krrdistill::library {
namespace {

constexpr double float_rounding = 10.0 * 0x1p-24;  // of products of floats, relative to the largest eigenvalue

// W = rhs (gram + lambda I)^-1, multiplied by `features` where there are fewer samples than features.
struct System {
  Matrix gram;      // G (p, p), or A A^T (n, n)
  Matrix rhs;       // C (k, p), or B^T (k, n)
  Matrix features;  // A (n, p), or empty
  double rounding;  // of gram, relative to its largest eigenvalue
};

struct Path {
  std::vector<double> lambdas;   // ascending
  std::vector<Matrix> models;    // (k, p), zero where there is none
  std::vector<double> residual;  // squared error on the training samples
  std::vector<unsigned char> solved;
  std::vector<unsigned char> resolved;  // above the rounding of the Gram matrix, too
};

template <typename T>
System summed(const Problem& problem, const Samples& X) {
  const FeatureMap<T> map = kernels_map<T>(problem.map.parts(), true);
  const int64_t p = map.output_dim(), rows = tile_rows(problem.map.parts(), sizeof(T));
  const double exact = static_cast<double>(p) * std::numeric_limits<double>::epsilon();
  System out{.gram = Matrix(p, p),
             .rhs = Matrix(problem.k, p),
             .features = {},
             .rounding = std::is_same_v<T, float> ? std::max(exact, float_rounding) : exact};
  const Targets targets = problem.targets();
  // Not filled with zeros: of what all threads together may need, few rows touch little.
  const auto workspace =
      std::make_unique_for_overwrite<T[]>(  // NOLINT(modernize-avoid-c-arrays): an array of known size at run time
          accumulate_workspace(map, rows, targets));
  accumulate(map, X.input(), targets, rows, out.gram.values.data(), out.rhs.values.data(), workspace.get());
  symmetrize(out.gram.values.data(), p);
  return out;
}

// Bytes without layers are summed exactly, as integers; fewer samples than features are kept as they are.
System system_of(const Problem& problem, const Samples& X) {
  const Map& map = problem.map;
  if (X.n() < map.output_dim()) {
    Matrix A = map.transform(X), rhs(problem.k, X.n());
    for (int64_t i = 0; i < X.n(); ++i) {
      for (int64_t c = 0; c < problem.k; ++c) {
        rhs(c, i) = problem.target(X.input().row_of(i), c);
      }
    }
    const double rounding = static_cast<double>(map.output_dim()) * std::numeric_limits<double>::epsilon();
    Matrix gram = product(A, A, Use::plain, Use::transposed);
    return {.gram = std::move(gram), .rhs = std::move(rhs), .features = std::move(A), .rounding = rounding};
  }
  const bool integers = X.input().type == InputType::u8 && map.parts().layers.empty() &&
                        map.parts().preprocessing.whitening.empty() && has_byte_products();
  return problem.options.precision == Precision::float64 || integers ? summed<double>(problem, X)
                                                                     : summed<float>(problem, X);
}

// ||Y - W Phi||^2 = ||Y||^2 - <W, C> - lambda ||W||^2, since W G = C - lambda W; for W = a A it is lambda^2 ||a||^2.
double residual(const Matrix& solution, const System& system, double lambda, double target_square) {
  const double square = dot(solution.values, solution.values);
  if (!system.features.empty()) {
    return lambda * lambda * square;
  }
  return std::max(target_square - dot(solution.values, system.rhs.values) - lambda * square, 0.0);
}

Path path_of(const System& system, std::vector<double> lambdas, double target_square) {
  const int64_t order = system.gram.rows, k = system.rhs.rows, count = std::ssize(lambdas);
  Matrix gram = system.gram, weights(count * k, order);
  Path out{.lambdas = std::move(lambdas),
           .models = {},
           .residual = std::vector<double>(count),
           .solved = std::vector<unsigned char>(count),
           .resolved = std::vector<unsigned char>(count)};
  std::vector<double> workspace(ridge_path_workspace(order, k, count));
  ridge_path(gram.values.data(), system.rhs.values.data(), order, k, out.lambdas.data(), count, system.rounding,
             weights.values.data(), out.solved.data(), out.resolved.data(), workspace.data());
  require(std::ranges::count(out.solved, 1) > 0,
          "distill: no lambda makes G + lambda I positive definite; give larger ones, or Precision::float64");
  for (int64_t l = 0; l < count; ++l) {
    Matrix solution(k, order);
    if (out.solved[l] != 0) {
      std::copy_n(weights.row(l * k), k * order, solution.values.begin());
    }
    out.residual[l] = residual(solution, system, out.lambdas[l], target_square);
    out.models.push_back(system.features.empty() ? std::move(solution) : product(solution, system.features));
  }
  return out;
}

template <typename T>
std::vector<double> accuracies(const Problem& problem, const Samples& X, const Path& path) {
  const FeatureMap<T> map = kernels_map<T>(problem.map.parts(), true);
  const int64_t count = std::ssize(path.models), rows = tile_rows(problem.map.parts(), sizeof(T));
  std::vector<T> weights;
  for (const Matrix& W : path.models) {
    weights.insert(weights.end(), W.values.begin(), W.values.end());
  }
  std::vector<T> workspace(score_path_workspace(map, rows, count, problem.k));
  std::vector<int64_t> correct(count);
  score_path(map, X.input(), problem.labels, weights.data(), count, problem.k, rows, correct.data(), workspace.data());
  std::vector<double> out(count);
  std::ranges::transform(correct, out.begin(),
                         [&](int64_t hits) { return static_cast<double>(hits) / static_cast<double>(X.n()); });
  return out;
}

// R^2 of every target, minus the squared error of one that does not vary.
std::vector<double> r_squared(const Problem& problem, const Samples& X, const Matrix& features, const Matrix& W) {
  const Matrix scores = product(features, W, Use::plain, Use::transposed);
  std::vector<double> out(problem.k);
  const auto n = static_cast<double>(X.n());
  for (int64_t c = 0; c < problem.k; ++c) {
    double mean = 0.0, error = 0.0, variance = 0.0;
    for (int64_t i = 0; i < X.n(); ++i) {
      mean += problem.target(X.input().row_of(i), c) / n;
    }
    for (int64_t i = 0; i < X.n(); ++i) {
      const double y = problem.target(X.input().row_of(i), c);
      error += (scores(i, c) - y) * (scores(i, c) - y) / n;
      variance += (y - mean) * (y - mean) / n;
    }
    out[c] = variance > 0.0 ? 1.0 - error / variance : -error;
  }
  return out;
}

// GCV(lambda) = n RSS / (n - df)^2, df = tr(G (G + lambda I)^-1), negated: the largest is the best.
std::vector<double> gcv_scores(const System& system, const Path& path, int64_t n) {
  Matrix gram = system.gram;
  std::vector<double> freedom(path.lambdas.size()), workspace(degrees_of_freedom_workspace(gram.rows));
  degrees_of_freedom(gram.values.data(), gram.rows, path.lambdas.data(), std::ssize(path.lambdas), freedom.data(),
                     workspace.data());
  std::vector<double> out(path.lambdas.size());
  for (size_t l = 0; l < out.size(); ++l) {
    const double left = static_cast<double>(n) - freedom[l];
    out[l] = left > 0.0 ? -static_cast<double>(n) * path.residual[l] / (left * left)
                        : -std::numeric_limits<double>::infinity();
  }
  return out;
}

// The largest score, of equals the one of the largest lambda; under the noise floor only where there is no other.
int64_t best_of(const std::vector<double>& scores, const Path& path) {
  const bool any = std::ranges::any_of(path.resolved, [](unsigned char is) { return is != 0; });
  int64_t best = -1;
  for (int64_t l = 0; l < std::ssize(scores); ++l) {
    const bool eligible = path.solved[l] != 0 && (!any || path.resolved[l] != 0) && !std::isnan(scores[l]);
    if (eligible && (best < 0 || scores[l] >= scores[best])) {
      best = l;
    }
  }
  require(best >= 0, "distill: no lambda has a model that can be scored; give larger ones, or Precision::float64");
  return best;
}

std::vector<double> grid(const DistillOptions& options) {
  std::vector<double> lambdas = options.lambdas;
  for (int step = -12; options.lambdas.empty() && step < 12; ++step) {
    lambdas.push_back(std::pow(10.0, 0.5 * step));
  }
  std::ranges::sort(lambdas);
  lambdas.erase(std::ranges::unique(lambdas).begin(), lambdas.end());
  require(std::ranges::all_of(lambdas, [](double lambda) { return std::isfinite(lambda) && lambda > 0.0; }),
          "distill: lambdas must be numbers > 0");
  return lambdas;
}

}  // namespace

Trained train(const Problem& problem) {
  const Split rows = split(problem);
  const Samples X = problem.X.only(rows.training);
  const System system = system_of(problem, X);
  require(all_finite(system.gram.values) && all_finite(system.rhs.values),
          "distill: the features overflow; scale the samples, or standardize them");
  double target_square = 0.0;
  std::vector<double> spread(problem.k);
  for (int64_t c = 0; c < problem.k; ++c) {
    double mean = 0.0, square = 0.0;
    for (const int64_t i : rows.training) {
      const double y = problem.target(i, c);
      mean += y / static_cast<double>(X.n());
      square += y * y;
    }
    target_square += square;
    spread[c] = std::sqrt(std::max(square / static_cast<double>(X.n()) - mean * mean, 0.0));
  }
  const Path path = path_of(system, grid(problem.options), target_square);
  std::vector<double> scores;
  std::vector<std::vector<double>> per_target;
  const Samples validation = problem.X.only(rows.validation);
  if (rows.validation.empty()) {
    scores = gcv_scores(system, path, X.n());
  } else if (problem.labels != nullptr) {
    scores = problem.options.precision == Precision::float64 ? accuracies<double>(problem, validation, path)
                                                             : accuracies<float>(problem, validation, path);
  } else {
    const Matrix features = problem.map.transform(validation);
    for (const Matrix& W : path.models) {
      per_target.push_back(r_squared(problem, validation, features, W));
      scores.push_back(std::accumulate(per_target.back().begin(), per_target.back().end(), 0.0) /
                       static_cast<double>(problem.k));
    }
  }
  const int64_t best = best_of(scores, path);
  return {.W = path.models[best],
          .lambda = path.lambdas[best],
          .score = rows.validation.empty() ? -scores[best] : scores[best],
          .scores_per_target = per_target.empty() ? std::vector<double>() : per_target[best],
          .spread = std::move(spread),
          .n_train = X.n(),
          .n_validation = validation.n()};
}

}  // namespace krrdistill::library
