// Feature maps that own their weights, for distill.h: phi(x) = h_L with h_0 = (x - origin) / unit, h_l = act_l(W_l
// h_{l-1}
// + b_l). Weights come from Philox bits: a seed gives the same map as in Python, on every machine.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "krrdistill/feature_map.h"
#include "krrdistill/matrix.h"

namespace krrdistill {

// Raw samples (n, d), row-major, in the caller's memory. Throws DataError where the numbers are no whole rows of d.
class Samples {
 public:
  Samples(std::span<const uint8_t> values, int64_t d) : Samples(values.data(), InputType::u8, values.size(), d) {}
  Samples(std::span<const float> values, int64_t d) : Samples(values.data(), InputType::f32, values.size(), d) {}
  Samples(std::span<const double> values, int64_t d) : Samples(values.data(), InputType::f64, values.size(), d) {}

  [[nodiscard]] int64_t n() const { return input_.n; }
  [[nodiscard]] int64_t d() const { return input_.row_stride; }
  [[nodiscard]] double operator()(int64_t i, int64_t j) const;
  [[nodiscard]] const Input& input() const { return input_; }
  // Some of the rows; `rows` is the caller's, too.
  [[nodiscard]] Samples only(std::span<const int64_t> rows) const;

 private:
  Samples(const void* data, InputType type, size_t count, int64_t d);

  Input input_;
};

// u = (x - origin) / unit, the first stage of a map; empty: u = x.
struct Preprocessing {
  std::vector<double> origin;  // (d,)
  std::vector<double> unit;    // (d,), no zeros
  Matrix whitening;            // (d, d): of files with ZCA, z = u whitening
};

// Mean and standard deviation of X: of each entry, or with the shape (h, w) or (h, w, channels) of an image, of each
// channel. What never changes gets the unit 1. Throws DataError for NaN, infinity, no samples, another shape.
Preprocessing standardize(const Samples& X, const std::vector<int64_t>& shape = {});

class Map {
 public:
  // phi(x) = x.
  static Map identity(int64_t d, const Preprocessing& preprocessing = {});
  // phi(x) = sqrt(2/p) cos(A x + b), A_ij ~ N(0, 1/sigma2), b ~ U[0, 2 pi]: the Gaussian kernel of width sqrt(sigma2).
  static Map random_fourier(int64_t d, int64_t p, double sigma2, uint64_t seed = 0,
                            const Preprocessing& preprocessing = {});
  // phi(x) = act(W_L ... act(W_1 x)), act(t) = t or slope t (t <= 0), W_l ~ N(0, 1/inputs), widths d_1 ... d_L.
  static Map fcnn(int64_t d, const std::vector<int64_t>& widths, uint64_t seed = 0,
                  const Preprocessing& preprocessing = {}, double slope = 0.1);

  [[nodiscard]] int64_t input_dim() const;                 // d
  [[nodiscard]] int64_t output_dim() const;                // p
  [[nodiscard]] const std::string& kernel() const;         // "identity", "random_fourier", "FCNN", "deep_linear"
  [[nodiscard]] std::string fingerprint() const;           // SHA-256 of all that decides the features
  [[nodiscard]] Matrix transform(const Samples& X) const;  // phi(X) (n, p) in double. Throws DataError, NonFinite

  struct Parts;  // csrc/library/map_parts.h
  explicit Map(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}
  [[nodiscard]] const Parts& parts() const { return *parts_; }

 private:
  std::shared_ptr<const Parts> parts_;  // never changes: copies share it
};

}  // namespace krrdistill
