#include "krrdistill/map.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

#include "library/dense.h"
#include "library/map_parts.h"
#include "library/npy.h"
#include "library/require.h"
#include "library/sha256.h"

namespace krrdistill {

using library::require;

double Map::Parts::feature_limit() const {
  return !layers.empty() && layers.back().activation == Activation::cosine ? layers.back().parameter
                                                                           : std::numeric_limits<double>::infinity();
}

Samples::Samples(const void* data, InputType type, size_t count, int64_t d)
    : input_{.data = data, .type = type, .row_stride = d, .rows = nullptr, .n = 0} {
  require(d > 0 && count % static_cast<size_t>(d) == 0,
          std::to_string(count) + " numbers are no whole samples of " + std::to_string(d));
  input_.n = static_cast<int64_t>(count) / d;
}

double Samples::operator()(int64_t i, int64_t j) const {
  const int64_t at = input_.row_of(i) * input_.row_stride + j;
  switch (input_.type) {
    case InputType::u8:
      return static_cast<const uint8_t*>(input_.data)[at];
    case InputType::f32:
      return static_cast<const float*>(input_.data)[at];
    default:
      return static_cast<const double*>(input_.data)[at];
  }
}

Samples Samples::only(std::span<const int64_t> rows) const {
  Samples out = *this;
  out.input_.rows = rows.data();
  out.input_.n = std::ssize(rows);
  return out;
}

Preprocessing standardize(const Samples& X, const std::vector<int64_t>& shape) {
  int64_t entries = 1;
  for (const int64_t size : shape) {
    entries *= size;
  }
  require(X.n() > 0, "standardize: there are no samples");
  require(shape.size() <= 3 && (shape.empty() || entries == X.d()),
          "standardize: the shape must be (h, w) or (h, w, channels) of " + std::to_string(X.d()) + " entries");
  int64_t channels = X.d();
  if (shape.size() >= 2) {
    channels = shape.size() == 2 ? 1 : shape[2];
  }
  const int64_t entries_of_channel = X.d() / channels;
  const double count = static_cast<double>(X.n()) * static_cast<double>(entries_of_channel);
  const auto average = [&](auto term) {
    std::vector<double> sums(channels);
    for (int64_t i = 0; i < X.n(); ++i) {
      for (int64_t j = 0; j < X.d(); ++j) {
        sums[j % channels] += term(X(i, j), j % channels);
      }
    }
    std::ranges::for_each(sums, [&](double& sum) { sum /= count; });
    return sums;
  };
  // About the first sample, so that what never changes has a deviation of exactly 0.
  const std::vector<double> mean = average([&](double x, int64_t c) { return x - X(0, c); });
  const std::vector<double> square = average([&](double x, int64_t c) {
    const double deviation = x - X(0, c) - mean[c];
    return deviation * deviation;
  });
  Preprocessing out{.origin = std::vector<double>(X.d()), .unit = std::vector<double>(X.d()), .whitening = {}};
  for (int64_t j = 0; j < X.d(); ++j) {
    const double deviation = std::sqrt(square[j % channels]);
    out.origin[j] = X(0, j % channels) + mean[j % channels];
    out.unit[j] = deviation == 0.0 ? 1.0 : deviation;
  }
  require(library::all_finite(out.origin) && library::all_finite(out.unit),
          "standardize: the samples hold NaN or infinity, or spread too widely for doubles");
  return out;
}

namespace {

void check_sizes(const std::string& where, int64_t d, const std::vector<int64_t>& widths) {
  require(d > 0 && std::ranges::all_of(widths, [](int64_t width) { return width > 0; }),
          where + ": the number of inputs and of features must be at least 1");
}

}  // namespace

Map Map::identity(int64_t d, const Preprocessing& preprocessing) {
  check_sizes("identity", d, {});
  return library::assembled(d, "identity", {}, preprocessing, {});
}

Map Map::random_fourier(int64_t d, int64_t p, double sigma2, uint64_t seed, const Preprocessing& preprocessing) {
  check_sizes("random_fourier", d, {p});
  require(std::isfinite(sigma2) && sigma2 > 0.0, "random_fourier: sigma2 must be a number > 0");
  return library::assembled(d, "random_fourier", {{"n_features", {p}}, {"sigma2", {sigma2}}, {"seed", {seed}}},
                            preprocessing, library::fourier_layers(d, p, sigma2, seed));
}

Map Map::fcnn(int64_t d, const std::vector<int64_t>& widths, uint64_t seed, const Preprocessing& preprocessing,
              double slope) {
  check_sizes("fcnn", d, widths);
  require(!widths.empty() && std::isfinite(slope) && slope > 0.0, "fcnn: it needs a layer, and a slope > 0");
  return library::assembled(d, "FCNN", {{"widths", library::list(widths)}, {"slope", {slope}}, {"seed", {seed}}},
                            preprocessing, library::gaussian_layers(d, widths, seed, Activation::leaky_relu, slope));
}

int64_t Map::input_dim() const { return parts_->input_dim; }

int64_t Map::output_dim() const { return parts_->output_dim(); }

const std::string& Map::kernel() const { return parts_->kernel; }

Matrix Map::transform(const Samples& X) const {
  require(X.d() == input_dim(),
          "samples of " + std::to_string(X.d()) + " entries, the map takes " + std::to_string(input_dim()));
  return library::features_of(*this, X.input(), true);
}

std::string Map::fingerprint() const {
  library::Sha256 digest;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, const auto& numbers) {
    digest.update(name + library::shown_shape(shape));
    digest.update(std::as_bytes(std::span(numbers)));
  };
  std::string forms;
  int64_t number = 0;
  const auto add_form = [&](Activation activation, double parameter) {
    forms += std::string(forms.empty() ? "" : ", ") + "('" + library::activation_name(activation) + "', " +
             library::shortest(parameter) + ")";
    ++number;
  };
  const Preprocessing& before = parts_->preprocessing;
  if (!before.whitening.empty()) {
    add("weight_0", {before.whitening.rows, before.whitening.columns}, before.whitening.values);
    add_form(Activation::linear, 1.0);
  }
  for (const auto& layer : parts_->layers) {
    add("weight_" + std::to_string(number), {layer.outputs, layer.inputs}, layer.weight);
    if (!layer.bias.empty()) {
      add("bias_" + std::to_string(number), {layer.outputs}, layer.bias);
    }
    add_form(layer.activation, layer.parameter);
  }
  if (parts_->standardises) {
    add("origin", {input_dim()}, before.origin);
    add("unit", {input_dim()}, before.unit);
  }
  digest.update(std::string("(").append(std::to_string(input_dim())).append(", [").append(forms).append("])"));
  return digest.hex();
}

}  // namespace krrdistill
