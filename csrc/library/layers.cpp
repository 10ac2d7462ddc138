#include "library/map_parts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <ranges>
#include <type_traits>
#include <utility>

#include "common/checked_size.h"
#include "krrdistill/errors.h"
#include "krrdistill/preimage.h"
#include "library/dense.h"
#include "library/require.h"

namespace krrdistill::library {
namespace {

using Weights = Map::Parts::Weights;

constexpr int64_t tile_bytes = int64_t{48} * 1024 * 1024;  // of a tile's widest buffer, as the Python package has
constexpr double beyond_range = 1e-9;                      // relative excess of a feature over the cosine's range

// The angle among +-arccos + 2 pi j that is nearest to `near`.
double nearest_angle(double cosine, double near) {
  constexpr double period = 2.0 * std::numbers::pi;
  const double theta = std::acos(std::clamp(cosine, -1.0, 1.0));
  const double up = theta + period * std::nearbyint((near - theta) / period);
  const double down = -theta + period * std::nearbyint((near + theta) / period);
  return std::fabs(up - near) <= std::fabs(down - near) ? up : down;
}

// T with act(T + b) = H, rows (m, outputs), in place.
void undo_activation(const Weights& layer, Matrix& H) {
  for (int64_t i = 0; i < H.rows; ++i) {
    for (int64_t j = 0; j < H.columns; ++j) {
      const double bias = layer.bias_f64.empty() ? 0.0 : layer.bias_f64[j];
      double value = H(i, j);
      if (layer.activation == Activation::leaky_relu) {
        value = value > 0.0 ? value : value / layer.parameter;
      } else if (layer.activation == Activation::cosine) {
        value /= layer.parameter;
        require(std::fabs(value) <= 1.0 + beyond_range, "preimage: a feature lies outside of the range of the cosine");
        value = nearest_angle(value, bias);
      }
      H(i, j) = value - bias;
    }
  }
}

// The least-norm X (m, d) with X W^T = R, W (p, d).
Matrix solve_weights(std::vector<double> W, int64_t p, int64_t d, Matrix R) {
  if (p > d) {
    throw NotSurjective("a layer maps " + std::to_string(d) + " inputs to " + std::to_string(p) +
                        " features; an exact preimage needs at most " + std::to_string(d) + " features");
  }
  Matrix X(R.rows, d);
  std::vector<double> workspace(preimage_workspace(p, d, R.rows));
  std::vector<int> pivots(2 * static_cast<size_t>(p));
  const double floor = std::numeric_limits<double>::epsilon() * static_cast<double>(d);
  const double rcond =
      preimage_solve(W.data(), R.values.data(), X.values.data(), p, d, R.rows, floor, workspace.data(), pivots.data());
  if (!(rcond >= floor)) {
    throw NotSurjective("preimage: the weights (" + std::to_string(p) + ", " + std::to_string(d) +
                        ") are rank deficient to working precision");
  }
  return X;
}

std::vector<float> gaussian_weight(uint64_t seed, Stream stream, int64_t outputs, int64_t inputs, double precision) {
  const std::vector<double> drawn = normal(seed, stream, checked_product(outputs, inputs));
  std::vector<float> weight(drawn.size());
  const double root = std::sqrt(precision);
  std::ranges::transform(drawn, weight.begin(), [&](double value) { return static_cast<float>(value / root); });
  return weight;
}

template <typename T>
Layer<T> kernel_layer(const Weights& layer) {
  const auto pick = [](const std::vector<float>& single, const std::vector<double>& exact) -> const T* {
    if constexpr (std::is_same_v<T, float>) {
      return single.empty() ? nullptr : single.data();
    } else {
      return exact.empty() ? nullptr : exact.data();
    }
  };
  return {.weight = pick(layer.weight, layer.weight_f64),
          .ld = layer.inputs,
          .outputs = layer.outputs,
          .inputs = layer.inputs,
          .bias = pick(layer.bias, layer.bias_f64),
          .activation = layer.activation,
          .parameter = static_cast<T>(layer.parameter),
          .hadamard = {}};
}

}  // namespace

Weights dense_layer(std::vector<float> weight, std::vector<float> bias, int64_t outputs, int64_t inputs,
                    Activation activation, double parameter) {
  std::vector<double> weight_f64(weight.begin(), weight.end()), bias_f64(bias.begin(), bias.end());
  return {.outputs = outputs,
          .inputs = inputs,
          .weight = std::move(weight),
          .bias = std::move(bias),
          .activation = activation,
          .parameter = parameter,
          .weight_f64 = std::move(weight_f64),
          .bias_f64 = std::move(bias_f64)};
}

Layers gaussian_layers(int64_t d, const std::vector<int64_t>& widths, uint64_t seed, Activation activation,
                       double parameter) {
  Layers layers;
  int64_t inputs = d;
  for (const int64_t outputs : widths) {
    const Stream stream = layer_stream(static_cast<int64_t>(layers.size()));
    layers.push_back(dense_layer(gaussian_weight(seed, stream, outputs, inputs, static_cast<double>(inputs)), {},
                                 outputs, inputs, activation, parameter));
    inputs = outputs;
  }
  return layers;
}

Layers fourier_layers(int64_t d, int64_t p, double sigma2, uint64_t seed) {
  const std::vector<double> drawn = uniform(seed, Stream::fourier_bias, p);
  std::vector<float> bias(drawn.size());
  std::ranges::transform(drawn, bias.begin(), [](double u) { return static_cast<float>(2.0 * std::numbers::pi * u); });
  Layers layers;
  layers.push_back(dense_layer(gaussian_weight(seed, Stream::weights, p, d, sigma2), std::move(bias), p, d,
                               Activation::cosine, std::sqrt(2.0 / static_cast<double>(p))));
  return layers;
}

Map assembled(int64_t d, std::string kernel, Json::Object parameters, Preprocessing preprocessing, Layers layers) {
  const bool standardises = !preprocessing.origin.empty();
  if (!standardises) {
    preprocessing = {.origin = std::vector<double>(d, 0.0), .unit = std::vector<double>(d, 1.0), .whitening = {}};
  }
  const Matrix& whitening = preprocessing.whitening;
  require(std::ssize(preprocessing.origin) == d && std::ssize(preprocessing.unit) == d &&
              (whitening.empty() || (whitening.rows == d && whitening.columns == d)),
          "preprocessing is of " + std::to_string(preprocessing.origin.size()) + " entries, the map of " +
              std::to_string(d));
  std::vector<double> scale(d), shift(d);
  for (int64_t j = 0; j < d; ++j) {
    scale[j] = 1.0 / preprocessing.unit[j];
    shift[j] = -preprocessing.origin[j] / preprocessing.unit[j];
  }
  require(all_finite(scale) && all_finite(shift) && all_finite(preprocessing.unit) && all_finite(whitening.values),
          "preprocessing holds NaN or infinity, or a unit of zero, which cannot be undone");
  int64_t inputs = d;
  for (const Weights& layer : layers) {
    require(layer.inputs == inputs && all_finite(layer.weight_f64) && all_finite(layer.bias_f64) &&
                std::isfinite(layer.parameter) && layer.parameter > 0.0,
            "the layers of the map do not fit together, or hold NaN or infinity");
    inputs = layer.outputs;
  }
  std::vector<float> whitening_f32(whitening.values.begin(), whitening.values.end());
  return Map(std::make_shared<const Map::Parts>(Map::Parts{.input_dim = d,
                                                           .kernel = std::move(kernel),
                                                           .parameters = std::move(parameters),
                                                           .preprocessing = std::move(preprocessing),
                                                           .standardises = standardises,
                                                           .scale = std::move(scale),
                                                           .shift = std::move(shift),
                                                           .layers = std::move(layers),
                                                           .whitening_f32 = std::move(whitening_f32)}));
}

template <typename T>
FeatureMap<T> kernels_map(const Map::Parts& parts, bool of_raw) {
  const bool scaled = of_raw && parts.standardises;
  FeatureMap<T> map{.input_dim = parts.input_dim,
                    .scale = scaled ? parts.scale.data() : nullptr,
                    .shift = scaled ? parts.shift.data() : nullptr,
                    .layers = {}};
  if (!parts.preprocessing.whitening.empty()) {
    Layer<T> layer{.ld = parts.input_dim, .outputs = parts.input_dim, .inputs = parts.input_dim, .hadamard = {}};
    if constexpr (std::is_same_v<T, float>) {
      layer.weight = parts.whitening_f32.data();
    } else {
      layer.weight = parts.preprocessing.whitening.values.data();
    }
    map.layers.push_back(layer);
  }
  for (const Weights& layer : parts.layers) {
    map.layers.push_back(kernel_layer<T>(layer));
  }
  return map;
}

template FeatureMap<float> kernels_map(const Map::Parts&, bool);
template FeatureMap<double> kernels_map(const Map::Parts&, bool);

int64_t tile_rows(const Map::Parts& parts, int64_t item_size) {
  return std::clamp<int64_t>(tile_bytes / (kernels_map<double>(parts, true).max_width() * item_size), 64, 4096);
}

Matrix features_of(const Map& map, const Input& input, bool of_raw) {
  const auto kernels = kernels_map<double>(map.parts(), of_raw);
  const int64_t rows = tile_rows(map.parts(), sizeof(double));
  std::vector<double> workspace(tile_workspace(kernels, rows));
  Matrix out(input.n, map.output_dim());
  for (int64_t first = 0; first < input.n; first += rows) {
    transform_tile(kernels, input, first, std::min(rows, input.n - first), out.row(first), workspace.data());
  }
  return out;
}

Matrix features(const Map& map, const Matrix& standardised) {
  const Input input{.data = standardised.values.data(),
                    .type = InputType::f64,
                    .row_stride = standardised.columns,
                    .rows = nullptr,
                    .n = standardised.rows};
  return features_of(map, input, false);
}

Matrix preimage(const Map& map, Matrix F) {
  // W 0 + b = b: the inputs of every layer for u = 0 are 0, of Fourier features, which have a bias, too: one layer.
  const Map::Parts& parts = map.parts();
  for (const Weights& layer : std::views::reverse(parts.layers)) {
    undo_activation(layer, F);
    F = solve_weights(layer.weight_f64, layer.outputs, layer.inputs, std::move(F));
  }
  const Matrix& whitening = parts.preprocessing.whitening;
  return whitening.empty() ? F : solve_weights(whitening.values, whitening.rows, whitening.columns, std::move(F));
}

}  // namespace krrdistill::library
