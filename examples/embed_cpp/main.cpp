// krrdistill inside of a C++ program: the statistics of labelled images in one pass, ridge regression for 24 lambdas,
// ten images per class in closed form, and the check that ridge regression on those gives the same model back.
#include <krrdistill/blas.h>
#include <krrdistill/feature_map.h>
#include <krrdistill/preimage.h>
#include <krrdistill/ridge.h>
#include <krrdistill/score.h>
#include <krrdistill/solve.h>
#include <krrdistill/statistics.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <random>
#include <stdexcept>
#include <vector>

#include "images.h"

namespace {

namespace kd = krrdistill;
using Vector = std::vector<double>;  // matrices are row-major

constexpr int64_t side = 20, d = side * side, p = d, k = 10, points_per_class = 10, m = k * points_per_class;
constexpr int64_t n_train = 8000, n_validation = 2000, tile_rows = 512;
constexpr double slope = 0.1;

// C = A B^T for A (rows, inner) and B (columns, inner), with the BLAS that the library uses.
Vector times_transposed(const Vector& A, const Vector& B, int64_t inner) {
  int rows = static_cast<int>(A.size() / inner), columns = static_cast<int>(B.size() / inner);
  int depth = static_cast<int>(inner);
  Vector C(static_cast<size_t>(rows) * columns);
  char transposed = 'T', plain = 'N';
  double one = 1.0, zero = 0.0;
  kd::blas<double>().gemm(&transposed, &plain, &columns, &rows, &depth, &one, const_cast<double*>(B.data()), &depth,
                          const_cast<double*>(A.data()), &depth, &zero, C.data(), &columns);
  return C;
}

Vector transposed(const Vector& A, int64_t columns) {
  const int64_t rows = static_cast<int64_t>(A.size()) / columns;
  Vector result(A.size());
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      result[j * rows + i] = A[i * columns + j];
    }
  }
  return result;
}

// (A A^T)^-1 B for A (m, inner), B given and returned as B^T (columns, m): a right-hand side is a contiguous row.
Vector solve_gram(const Vector& A, int64_t inner, Vector right_sides) {
  Vector gram = times_transposed(A, A, inner);
  const auto size = static_cast<int64_t>(A.size()) / inner;
  kd::solve_spd(gram.data(), right_sides.data(), 1, size, static_cast<int64_t>(right_sides.size()) / size);
  return right_sides;
}

double norm(const Vector& A) {
  double square = 0.0;
  for (const double value : A) {
    square += value * value;
  }
  return std::sqrt(square);
}

// phi(x) = LeakyReLU(A z), z = x / 64 - 1, with square Gaussian weights A: surjective, so every feature has a preimage.
class Network {
 public:
  Network() {
    std::mt19937_64 random(1);
    std::normal_distribution<double> normal(0.0, 1.0 / std::sqrt(static_cast<double>(d)));
    for (int64_t i = 0; i < p * d; ++i) {
      single_[i] = static_cast<float>(normal(random));
      double_[i] = single_[i];
    }
  }

  // In float, behind the scaling of raw pixels: for the passes over the data.
  [[nodiscard]] kd::FeatureMap<float> of_pixels() const {
    return {.input_dim = d, .scale = scale_.data(), .shift = shift_.data(), .layers = {layer(single_)}};
  }

  // The same map in double, of scaled inputs z (m, d).
  [[nodiscard]] Vector features(const Vector& z) const {
    const kd::FeatureMap<double> map{.input_dim = d, .scale = nullptr, .shift = nullptr, .layers = {layer(double_)}};
    const auto rows = static_cast<int64_t>(z.size()) / d;
    Vector out(rows * p), workspace(kd::tile_workspace(map, rows));
    const kd::Input input{.data = z.data(), .type = kd::InputType::f64, .row_stride = d, .rows = nullptr, .n = rows};
    kd::transform_tile(map, input, 0, rows, out.data(), workspace.data());
    return out;
  }

  // z with features(z) = F.
  [[nodiscard]] Vector preimage(Vector F) const {
    for (double& value : F) {
      value = value > 0.0 ? value : value / slope;
    }
    const auto rows = static_cast<int64_t>(F.size()) / p;
    Vector weight = double_, z(rows * d), workspace(kd::preimage_workspace(p, d, rows));
    std::vector<int> pivots(2 * p);
    const double rcond =
        kd::preimage_solve(weight.data(), F.data(), z.data(), p, d, rows, 1e-12, workspace.data(), pivots.data());
    if (rcond < 1e-12) {
      throw std::runtime_error("the weights of the network have no inverse");
    }
    return z;
  }

 private:
  template <typename T>
  [[nodiscard]] static kd::Layer<T> layer(const std::vector<T>& weight) {
    return {.weight = weight.data(),
            .ld = d,
            .outputs = p,
            .inputs = d,
            .bias = nullptr,
            .activation = kd::Activation::leaky_relu,
            .parameter = static_cast<T>(slope),
            .hadamard = {}};
  }

  std::vector<float> single_ = std::vector<float>(p * d);
  Vector double_ = Vector(p * d);
  Vector scale_ = Vector(d, 1.0 / 64.0), shift_ = Vector(d, -1.0);
};

class Clock {
 public:
  explicit Clock(const char* what) : what_(what) {}
  ~Clock() {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start_;
    std::printf("  %-12s %8.4f s\n", what_, seconds.count());
  }
  Clock(const Clock&) = delete;
  Clock(Clock&&) = delete;
  Clock& operator=(const Clock&) = delete;
  Clock& operator=(Clock&&) = delete;

 private:
  const char* what_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

struct Statistics {
  Vector gram = Vector(p * p), cross = Vector(k * p);  // G = Phi^T Phi, C = Y^T Phi
};

kd::Input rows_of(const Images& images, int64_t first, int64_t count) {
  return {.data = images.pixels.data() + first * d,
          .type = kd::InputType::u8,
          .row_stride = d,
          .rows = nullptr,
          .n = count};
}

Statistics accumulate(const Network& network, const Images& images) {
  const Clock clock("statistics");
  Statistics s;
  const kd::FeatureMap<float> map = network.of_pixels();
  std::vector<float> workspace(kd::accumulate_workspace(map, tile_rows, k));
  const kd::Targets targets{.labels = images.labels.data(), .values = nullptr, .k = k};
  kd::accumulate(map, rows_of(images, 0, n_train), targets, tile_rows, s.gram.data(), s.cross.data(), workspace.data());
  kd::symmetrize(s.gram.data(), p);
  return s;
}

// How many validation images each of the models (models, k, p) classifies correctly.
std::vector<int64_t> count_correct(const Network& network, const Images& images, const Vector& models) {
  const auto count = static_cast<int64_t>(models.size()) / (k * p);
  std::vector<float> weights(models.begin(), models.end());
  const kd::FeatureMap<float> map = network.of_pixels();
  std::vector<float> workspace(kd::score_path_workspace(map, tile_rows, count, k));
  std::vector<int64_t> correct(count);
  kd::score_path(map, rows_of(images, n_train, n_validation), images.labels.data() + n_train, weights.data(), count, k,
                 tile_rows, correct.data(), workspace.data());
  return correct;
}

// W (k, p) for the lambda with the most correct validation images.
Vector choose_model(const Network& network, const Images& images, Statistics statistics) {
  const Clock clock("ridge");
  Vector lambdas;
  for (int step = -12; step < 12; ++step) {
    lambdas.push_back(std::pow(10.0, 0.5 * step));
  }
  const auto count = static_cast<int64_t>(lambdas.size());
  const double rounding = 10.0 * std::pow(2.0, -24.0);  // of float products, relative to the largest eigenvalue
  Vector models(count * k * p), workspace(kd::ridge_path_workspace(p, k, count));
  std::vector<unsigned char> definite(count), resolved(count);
  kd::ridge_path(statistics.gram.data(), statistics.cross.data(), p, k, lambdas.data(), count, rounding, models.data(),
                 definite.data(), resolved.data(), workspace.data());
  const std::vector<int64_t> correct = count_correct(network, images, models);
  int64_t best = -1;
  for (int64_t l = 0; l < count; ++l) {
    if (resolved[l] != 0 && (best < 0 || correct[l] >= correct[best])) {
      best = l;
    }
  }
  if (best < 0) {
    throw std::runtime_error("every lambda lies under the rounding errors of the Gram matrix");
  }
  std::printf("  lambda       %8.3g, the best of %lld\n", lambdas[best], static_cast<long long>(count));
  return {models.begin() + best * k * p, models.begin() + (best + 1) * k * p};
}

// Theorem 4.1 with one-hot labels Y (m, k), the classes in turn: D = Y W / ipc + (Z - its class means), F = (D^+)^T.
Vector distilled_features(const Vector& W) {
  std::mt19937_64 random(2);
  std::normal_distribution<double> normal(0.0, norm(W) / std::sqrt(static_cast<double>(k * p)) / points_per_class);
  Vector D(m * p), mean(k * p);
  for (int64_t i = 0; i < m * p; ++i) {
    D[i] = normal(random);
    mean[i % (k * p)] += D[i] / points_per_class;
  }
  for (int64_t i = 0; i < m * p; ++i) {
    D[i] += W[i % (k * p)] / points_per_class - mean[i % (k * p)];
  }
  return transposed(solve_gram(D, p, transposed(D, p)), m);
}

// W_S = Y^T (F F^T)^-1 F (k, p) for the features F (m, p) of the distilled inputs.
Vector retrain(const Vector& F) {
  Vector labels(k * m);  // Y^T
  for (int64_t i = 0; i < m; ++i) {
    labels[i % k * m + i] = 1.0;
  }
  return times_transposed(solve_gram(F, p, labels), transposed(F, p), m);
}

int run() {
  std::printf("%lld + %lld images of %lld pixels, %lld classes, %lld features\n", static_cast<long long>(n_train),
              static_cast<long long>(n_validation), static_cast<long long>(d), static_cast<long long>(k),
              static_cast<long long>(p));
  const Images images = draw_images(n_train + n_validation, side, k);
  const Network network;
  const Vector W = choose_model(network, images, accumulate(network, images));
  Vector z;
  {
    const Clock clock("distillation");
    z = network.preimage(distilled_features(W));
  }

  // What was distilled is z alone: a new model, trained on it, must be W again.
  const Vector W_S = retrain(network.features(z));
  Vector difference = W_S, models = W;
  for (size_t i = 0; i < W.size(); ++i) {
    difference[i] -= W[i];
  }
  models.insert(models.end(), W_S.begin(), W_S.end());
  const std::vector<int64_t> correct = count_correct(network, images, models);
  const double error = norm(difference) / norm(W);
  const double accuracy = static_cast<double>(correct[0]) / n_validation;
  std::printf("%lld distilled points: |W_S - W| / |W| = %.2g, validation accuracy %.4f, of W %.4f\n",
              static_cast<long long>(m), error, static_cast<double>(correct[1]) / n_validation, accuracy);
  const bool exact = error <= 1e-6 && correct[0] == correct[1] && accuracy > 0.5;
  std::printf("%s\n", exact ? "exact" : "NOT EXACT");
  return exact ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main() {
  try {
    return run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "embed_cpp: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
