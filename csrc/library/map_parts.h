// What a Map is made of, and what files and the construction need of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "krrdistill/map.h"
#include "library/archive.h"
#include "library/json.h"
#include "library/random.h"

namespace krrdistill {

struct Map::Parts {
  struct Weights {
    int64_t outputs;
    int64_t inputs;
    std::vector<float> weight;  // (outputs, inputs)
    std::vector<float> bias;    // (outputs,) or empty
    Activation activation;
    double parameter;
    std::vector<double> weight_f64;  // the same in double, for few points
    std::vector<double> bias_f64;
  };

  int64_t input_dim;
  std::string kernel;
  library::Json::Object parameters;  // what rebuilds the weights
  Preprocessing preprocessing;       // origin and unit of the samples, or 0 and 1
  bool standardises;                 // whether they are others than 0 and 1
  std::vector<double> scale;         // 1 / unit
  std::vector<double> shift;         // -origin / unit
  std::vector<Weights> layers;       // without the whitening
  std::vector<float> whitening_f32;

  [[nodiscard]] int64_t output_dim() const { return layers.empty() ? input_dim : layers.back().outputs; }
  [[nodiscard]] double feature_limit() const;  // the largest |entry| of features
};

namespace library {

using Layers = std::vector<Map::Parts::Weights>;

Map::Parts::Weights dense_layer(std::vector<float> weight, std::vector<float> bias, int64_t outputs, int64_t inputs,
                                Activation activation, double parameter);
// W ~ N(0, 1 / precision), act(W h) or sqrt(2/p) cos(W h + b).
Layers gaussian_layers(int64_t d, const std::vector<int64_t>& widths, uint64_t seed, Activation activation,
                       double parameter);
Layers fourier_layers(int64_t d, int64_t p, double sigma2, uint64_t seed);
// Throws DataError for preprocessing and weights that are not finite, or do not fit.
Map assembled(int64_t d, std::string kernel, Json::Object parameters, Preprocessing preprocessing, Layers layers);

// The map as the kernels take it, on raw samples or on standardised ones; it points into `parts`.
template <typename T>
FeatureMap<T> kernels_map(const Map::Parts& parts, bool of_raw);
Matrix features_of(const Map& map, const Input& input, bool of_raw);
Matrix features(const Map& map, const Matrix& standardised);  // phi of rows u
// Rows u with phi(u) = F, the least change of a layer's inputs that does. Throws NotSurjective.
Matrix preimage(const Map& map, Matrix F);

const char* activation_name(Activation activation);
Json map_spec(const Map& map);  // meta's "map"
// The map of a file: its weights are the file's, or drawn. Throws DataError.
Map map_of(const Json& meta, const Arrays& arrays);
Arrays map_arrays(const Map& map);  // weights, by their names in the file
int64_t most_drawn(int64_t d);      // random numbers that a reader draws for a map of d inputs, as Python does
int64_t tile_rows(const Map::Parts& parts, int64_t item_size);

}  // namespace library
}  // namespace krrdistill
