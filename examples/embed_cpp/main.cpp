// krrdistill inside of a C++ program: labelled images distilled to ten points of each class, their file, and the check
// that ridge regression on what is in the file gives the same model back.
#include <krrdistill/distill.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <span>

#include "images.h"

namespace {

namespace kd = krrdistill;

constexpr int64_t side = 20, d = side * side, classes = 10, n = 10000, n_test = 2000;

int run(const char* file) {
  const Images images = draw_images(n + n_test, side, classes);
  const std::span<const uint8_t> pixels = images.pixels;
  const std::span<const int64_t> labels = images.labels;
  const kd::Samples X(pixels.first(n * d), d), X_test(pixels.subspan(n * d), d);

  // phi(x) = LeakyReLU(A z), z standardised, with square A: surjective, so every feature vector has an exact preimage.
  const kd::Map phi = kd::Map::fcnn(d, {d}, 1, kd::standardize(X, {side, side}));
  const kd::Distillation made = kd::distill(X, labels.first(n), phi, {.points_per_class = 10, .shape = {side, side}});
  std::printf("lambda %.3g, accuracy %.4f on the held-out part of %lld images\n", made.lambda, made.score,
              static_cast<long long>(n));
  made.distilled.save(file);

  // From here on there is the file alone.
  const kd::DistilledSet points = kd::DistilledSet::load(file);
  const kd::Model retrained = points.fit();
  const double error = points.verify(made.model).weight_error;
  const double accuracy = retrained.accuracy(X_test, labels.subspan(n));
  const double original = made.model.accuracy(X_test, labels.subspan(n));
  std::printf("%s: %lld points, |W_S - W| / |W| = %.2g, test accuracy %.4f, of the original %.4f\n", file,
              static_cast<long long>(points.inputs.rows), error, accuracy, original);
  const bool exact = error <= 1e-8 && std::fabs(accuracy - original) < 1e-9 && accuracy > 0.5;
  std::printf("%s\n", exact ? "exact" : "NOT EXACT");
  return exact ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return run(count > 1 ? arguments[1] : "distilled.npz");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "embed_cpp: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
