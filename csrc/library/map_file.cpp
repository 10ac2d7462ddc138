// Maps in files: the description in meta, the weights, and how a map comes back from both.
#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "common/checked_size.h"
#include "library/map_parts.h"
#include "library/require.h"

namespace krrdistill::library {
namespace {

constexpr std::array<const char*, 3> activation_names = {"linear", "leaky_relu", "cosine"};
constexpr int64_t least_counted = 65536;  // random numbers that a layer counts for

Activation activation_of(const std::string& name) {
  const auto* found = std::ranges::find(activation_names, name);
  require(found != activation_names.end(), "map: unknown activation " + name);
  return static_cast<Activation>(found - activation_names.begin());
}

std::vector<float> floats(const Arrays& arrays, const std::string& name, const std::vector<int64_t>& shape) {
  const StoredArray& array = arrays.at(name);
  require(array.type == "<f4" && array.shape == shape, name + " is " + array.shown() + ", which does not fit the map");
  std::vector<float> out(array.bytes.size() / sizeof(float));
  std::memcpy(out.data(), array.bytes.data(), array.bytes.size());
  return out;
}

Layers stored_layers(const Json& description, const Arrays& arrays, int64_t d) {
  const auto* forms = std::get_if<Json::Array>(&description["layers"].value);
  require(forms != nullptr, "map: layers must be a list");
  Layers out;
  int64_t inputs = d;
  for (const Json& form : *forms) {
    const std::string number = std::to_string(out.size());
    const auto weight = arrays.find("map_weight_" + number);
    require(weight != arrays.end() && weight->second.shape.size() == 2 && weight->second.shape[0] > 0 &&
                weight->second.shape[1] == inputs,
            "map_weight_" + number + " is missing, or does not fit the map");
    const int64_t outputs = weight->second.shape[0];
    const bool has_bias = arrays.contains("map_bias_" + number);
    std::vector<float> bias = has_bias ? floats(arrays, "map_bias_" + number, {outputs}) : std::vector<float>();
    out.push_back(dense_layer(floats(arrays, weight->first, {outputs, inputs}), std::move(bias), outputs, inputs,
                              activation_of(form.text("activation")), form.number("parameter")));
    inputs = outputs;
  }
  return out;
}

// Raises before it draws more numbers than a file may ask for that does not have them.
void check_drawn(int64_t d, const std::vector<int64_t>& widths) {
  int64_t left = most_drawn(d), inputs = d;
  for (const int64_t outputs : widths) {
    left -= std::max(checked_product(outputs, inputs), least_counted);
    require(left >= 0, "map: its random numbers are more than a file may ask for; store the weights in it (embed_map)");
    inputs = outputs;
  }
}

Layers drawn_layers(const Json& description, const std::string& kernel, int64_t d) {
  const uint64_t seed = description.natural("seed");
  if (kernel == "random_fourier") {
    require(description["spectral"].is_null(),
            "map: the C++ library draws weights of the Gaussian kernel only; store "
            "those of others in the file (embed_map)");
    const int64_t p = description.size("n_features");
    const double sigma2 = description.number("sigma2");
    check_drawn(d, {p});
    require(sigma2 > 0.0, "map: sigma2 must be > 0");
    return fourier_layers(d, p, sigma2, seed);
  }
  const std::vector<int64_t> widths = description.sizes("widths");
  check_drawn(d, widths);
  return kernel == "FCNN" ? gaussian_layers(d, widths, seed, Activation::leaky_relu, description.number("slope"))
                          : gaussian_layers(d, widths, seed, Activation::linear, 1.0);
}

Preprocessing preprocessing_of(const Json& meta, const Arrays& arrays, int64_t d) {
  const auto vector = [&](const char* name, const std::vector<int64_t>& shape) {
    const auto found = arrays.find(name);
    require(found != arrays.end() && found->second.type == "<f8" && found->second.shape == shape,
            std::string(name) + " is missing, or no float64 of shape (d, ...) with d = " + std::to_string(d));
    return found->second.numbers();
  };
  Preprocessing out{.origin = vector("X_origin", {d}), .unit = vector("X_unit", {d}), .whitening = {}};
  const std::string& kind = meta["preprocessing"].text("kind");
  require(kind == "none" || kind == "standardize" || kind == "zca", "meta: unknown preprocessing " + kind);
  require(arrays.contains("whitening") == (kind == "zca"), "whitening belongs to preprocessing zca");
  if (kind == "zca") {
    out.whitening = Matrix(d, d);
    out.whitening.values = vector("whitening", {d, d});
  } else if (kind == "none") {
    const auto all = [](const std::vector<double>& values, double value) {
      return std::ranges::all_of(values, [&](double each) { return each == value; });
    };
    require(all(out.origin, 0.0) && all(out.unit, 1.0), "X_origin and X_unit contradict preprocessing none");
    out = {};
  }
  return out;
}

}  // namespace

const char* activation_name(Activation activation) { return activation_names[static_cast<size_t>(activation)]; }

Json map_spec(const Map& map) {
  Json::Array layers;
  for (const auto& layer : map.parts().layers) {
    layers.push_back(
        {Json::Object{{"activation", {activation_name(layer.activation)}}, {"parameter", {layer.parameter}}}});
  }
  Json::Object out = map.parts().parameters;
  out["kernel"] = {map.kernel()};
  out["input_dim"] = {map.input_dim()};
  out["output_dim"] = {map.output_dim()};
  out["layers"] = {std::move(layers)};
  out["fingerprint"] = {map.fingerprint()};
  return {std::move(out)};
}

Arrays map_arrays(const Map& map) {
  Arrays out;
  const Layers& layers = map.parts().layers;
  for (size_t number = 0; number < layers.size(); ++number) {
    const auto& layer = layers[number];
    out["map_weight_" + std::to_string(number)] = StoredArray::of(layer.weight, {layer.outputs, layer.inputs});
    if (!layer.bias.empty()) {
      out["map_bias_" + std::to_string(number)] = StoredArray::of(layer.bias, {layer.outputs});
    }
  }
  return out;
}

int64_t most_drawn(int64_t d) { return std::max<int64_t>(int64_t{64} * 1024 * 1024, least_counted * d); }

Map map_of(const Json& meta, const Arrays& arrays) {
  const Json& description = meta["map"];
  const std::string& kernel = description.text("kernel");
  const int64_t d = description.size("input_dim");
  const bool known = kernel == "identity" || kernel == "random_fourier" || kernel == "FCNN" || kernel == "deep_linear";
  require(known, "map: kernel " + kernel + "; the C++ library reads identity, random_fourier, FCNN and deep_linear, " +
                     "Python reads all");
  const bool stored = kernel == "identity" || arrays.contains("map_weight_0");
  Json::Object parameters = std::get<Json::Object>(description.value);
  for (const char* derived : {"kernel", "input_dim", "output_dim", "layers", "fingerprint"}) {
    parameters.erase(derived);
  }
  Layers layers = stored ? stored_layers(description, arrays, d) : drawn_layers(description, kernel, d);
  require((kernel == "identity") == layers.empty(), "map: " + kernel + " with another number of layers");
  Map map = assembled(d, kernel, std::move(parameters), preprocessing_of(meta, arrays, d), std::move(layers));
  require(map.output_dim() == description.size("output_dim"), "map: output_dim contradicts the layers");
  require(map.fingerprint() == description.text("fingerprint"),
          "map: its weights are not those that the recorded fingerprint is of");
  return map;
}

}  // namespace krrdistill::library
