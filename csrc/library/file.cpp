// The file of a distilled set, format krrdistill-2 (docs/reference/file-format.md).
#include <algorithm>
#include <array>
#include <utility>

#include "krrdistill/distill.h"
#include "library/archive.h"
#include "library/dense.h"
#include "library/map_parts.h"
#include "library/require.h"

namespace krrdistill {
namespace {

using library::all_finite;
using library::Arrays;
using library::Json;
using library::require;
using library::StoredArray;

constexpr const char* format = "krrdistill-2";
constexpr int64_t embed_limit = int64_t{1024} * 1024;  // weights up to this many numbers are stored by default
constexpr std::array<std::string_view, 14> array_names = {
    "X",        "X_scale", "X_offset",  "X_origin",      "X_unit",      "whitening",     "Y",
    "lambda_s", "W",       "intercept", "target_offset", "input_count", "input_squares", "meta"};

bool is_known(std::string_view name) {
  for (const std::string_view prefix : {"map_weight_", "map_bias_"}) {
    if (name.starts_with(prefix)) {
      return name.find_first_not_of("0123456789", prefix.size()) == std::string_view::npos;
    }
  }
  return std::ranges::find(array_names, name) != array_names.end();
}

// The float64 numbers of an array of a given shape; without one, where it may be absent, none.
std::vector<double> read(const Arrays& arrays, const char* name, const std::vector<int64_t>& shape,
                         bool optional = false) {
  const auto found = arrays.find(name);
  if (optional && found == arrays.end()) {
    return {};
  }
  require(found != arrays.end(), std::string(name) + " is missing: not a distilled data set");
  const StoredArray expected{.type = "<f8", .shape = shape, .bytes = {}};
  require(found->second.type == expected.type && found->second.shape == shape,
          std::string(name) + " is " + found->second.shown() + ", expected " + expected.shown());
  std::vector<double> out = found->second.numbers();
  require(all_finite(out), std::string(name) + " holds NaN or infinity");
  return out;
}

Matrix matrix(std::vector<double> values, int64_t rows, int64_t columns) {
  Matrix out;
  out.rows = rows;
  out.columns = columns;
  out.values = std::move(values);
  return out;
}

// Standardised inputs (m, d): float64 or float32 as they are, codes of float16 or bytes with a scale and an offset a
// row.
Matrix read_inputs(const Arrays& arrays, int64_t d) {
  const auto found = arrays.find("X");
  require(found != arrays.end(), "X is missing: not a distilled data set");
  const StoredArray& X = found->second;
  require(X.shape.size() == 2 && X.shape[0] > 0 && X.shape[1] == d,
          "X is " + X.shown() + ", the map takes " + std::to_string(d) + " columns");
  const bool coded = arrays.contains("X_scale");
  require(coded ? X.type == "<f2" || X.type == "|u1" : X.type == "<f8" || X.type == "<f4",
          "X is " + X.shown() + ", expected float64 or float32, or codes of float16 or uint8 with X_scale");
  Matrix out = matrix(X.numbers(), X.shape[0], d);
  if (coded) {
    const std::vector<double> scale = read(arrays, "X_scale", {out.rows}),
                              offset = read(arrays, "X_offset", {out.rows});
    require(std::ranges::all_of(scale, [](double value) { return value > 0.0; }), "X_scale must be positive");
    for (int64_t i = 0; i < out.rows; ++i) {
      for (int64_t j = 0; j < d; ++j) {
        out(i, j) = out(i, j) * scale[i] + offset[i];
      }
    }
  }
  require(all_finite(out.values), "X holds NaN or infinity");
  return out;
}

bool flag(const Json& meta, const std::string& key) {
  const Json& found = meta[key];
  const bool* value = std::get_if<bool>(&found.value);
  require(value != nullptr || found.is_null(), "meta: " + key + " must be true or false");
  return value != nullptr && *value;
}

void check_meta(const Json& meta, int64_t d, int64_t k) {
  int64_t entries = 1;
  for (const int64_t size : meta.sizes("shape")) {
    entries = size <= d ? entries * size : 0;
    require(entries > 0 && entries <= d, "meta: shape has another number of entries than X has columns");
  }
  require(entries == d, "meta: shape has another number of entries than X has columns");
  const Json& classes = meta["classes"];
  const auto* names = std::get_if<Json::Array>(&classes.value);
  require(classes.is_null() || (names != nullptr && std::ssize(*names) == k),
          "meta: classes must be a list with a name for each column of Y");
}

DistilledSet read_set(Arrays arrays) {
  const auto digest = arrays.extract("digest");
  for (const auto& [name, array] : arrays) {
    require(is_known(name), "not a distilled data set that the C++ library reads, it has an array " + name);
  }
  require(arrays.contains("meta"), "meta is missing: not a distilled data set");
  const Json meta = library::parse_json(arrays.at("meta").text());
  require(!meta["format"].is_null() && meta.text("format") == format,
          std::string("another format than ") + format + ", which this version reads");
  const int64_t d = meta["map"].size("input_dim");
  Matrix inputs = read_inputs(arrays, d);
  const auto Y = arrays.find("Y");
  require(Y != arrays.end() && Y->second.shape.size() == 2 && Y->second.shape[1] > 0,
          "Y is missing, or no matrix (m, k)");
  const int64_t m = inputs.rows, k = Y->second.shape[1];
  check_meta(meta, d, k);
  // Before weights are drawn.
  const int64_t p = meta["map"].size("output_dim");
  Matrix W = matrix(read(arrays, "W", {k, p}, true), k, p);
  const double lambda_s = read(arrays, "lambda_s", {}).front();
  require(lambda_s >= 0.0, "lambda_s must be >= 0");
  const std::vector<double> count = read(arrays, "input_count", {}, true);
  std::string targets = meta["targets"].is_null() ? "classes" : meta.text("targets");
  require(targets == "classes" || targets == "real" || targets == "multilabel", "meta: unknown targets " + targets);
  DistilledSet out{.map = library::map_of(meta, arrays),
                   .inputs = std::move(inputs),
                   .labels = matrix(read(arrays, "Y", {m, k}), m, k),
                   .lambda_s = lambda_s,
                   .W = W.empty() ? Matrix() : std::move(W),
                   .intercept = read(arrays, "intercept", {k}, true),
                   .target_offset = read(arrays, "target_offset", {k}, true),
                   .centered = flag(meta, "centered"),
                   .targets = std::move(targets),
                   .shape = meta.sizes("shape"),
                   .input_count = count.empty() ? 0.0 : count.front(),
                   .input_squares = read(arrays, "input_squares", {d}, count.empty()),
                   .meta = library::to_text(meta)};
  if (!digest.empty()) {
    require(digest.mapped().text() == library::content_digest(arrays),
            "its content was changed after it was written (its digest does not fit); distil again");
  }
  return out;
}

Json preprocessing_spec(const Json& before, const Map::Parts& parts) {
  const char* kind = parts.standardises ? "standardize" : "none";
  if (!parts.preprocessing.whitening.empty()) {
    kind = "zca";
  }
  if (!before["kind"].is_null() && before.text("kind") == kind) {
    return before;  // with what Python knows of its origin
  }
  Json::Object constants;
  if (parts.standardises) {
    constants = {{"source", {"x_train"}}, {"unit", {1.0}}};
  }
  return {Json::Object{{"kind", {kind}}, {"eps", Json()}, {"constants", {std::move(constants)}}}};
}

void check(const DistilledSet& set) {
  const int64_t m = set.inputs.rows, k = set.labels.columns, d = set.map.input_dim();
  const auto fits = [&](const std::vector<double>& values, int64_t size) {
    return values.empty() || (std::ssize(values) == size && all_finite(values));
  };
  require(m > 0 && set.inputs.columns == d && all_finite(set.inputs.values), "inputs must be finite, (m, d)");
  require(k > 0 && set.labels.rows == m && all_finite(set.labels.values), "labels must be finite, (m, k)");
  require(set.lambda_s >= 0.0 && all_finite({set.lambda_s}), "lambda_s must be a number >= 0");
  require(fits(set.W.values, k * set.map.output_dim()) && fits(set.intercept, k) && fits(set.target_offset, k) &&
              fits(set.input_squares, d),
          "W, intercept, target_offset or input_squares is not finite, or of another size");
}

}  // namespace

DistilledSet DistilledSet::load(const std::filesystem::path& path) {
  Arrays arrays = library::read_npz(path);
  try {
    return read_set(std::move(arrays));
  } catch (const std::runtime_error& error) {
    throw DataError(path.string() + ": " + error.what());
  }
}

void DistilledSet::save(const std::filesystem::path& path, std::optional<bool> embed_map) const {
  check(*this);
  const Map::Parts& parts = map.parts();
  Json meta_json = library::parse_json(meta);
  auto* facts = std::get_if<Json::Object>(&meta_json.value);
  require(facts != nullptr, "save: meta must be a JSON object");
  (*facts)["preprocessing"] = preprocessing_spec(meta_json["preprocessing"], parts);
  (*facts)["format"] = {format};
  (*facts)["map"] = library::map_spec(map);
  (*facts)["shape"] = library::list(shape);
  (*facts)["targets"] = {targets};
  (*facts)["centered"] = {centered};
  check_meta(meta_json, map.input_dim(), labels.columns);

  const int64_t d = map.input_dim(), k = labels.columns;
  Arrays arrays = {{"X", StoredArray::of(inputs.values, {inputs.rows, d})},
                   {"X_origin", StoredArray::of(parts.preprocessing.origin, {d})},
                   {"X_unit", StoredArray::of(parts.preprocessing.unit, {d})},
                   {"Y", StoredArray::of(labels.values, {labels.rows, k})},
                   {"lambda_s", StoredArray::of(std::vector<double>{lambda_s}, {})},
                   {"meta", StoredArray::of(library::to_text(meta_json))}};
  const auto add = [&](const char* name, const std::vector<double>& values, std::vector<int64_t> sizes) {
    if (!values.empty()) {
      arrays[name] = StoredArray::of(values, std::move(sizes));
    }
  };
  add("whitening", parts.preprocessing.whitening.values, {d, d});
  add("W", W.values, {k, map.output_dim()});
  add("intercept", intercept, {k});
  add("target_offset", target_offset, {k});
  if (!input_squares.empty()) {
    add("input_count", {input_count}, {});
    add("input_squares", input_squares, {d});
  }
  Arrays weights = library::map_arrays(map);
  int64_t numbers = 0;
  for (const auto& [name, array] : weights) {
    numbers += std::ssize(array.bytes) / 4;
  }
  if (embed_map.value_or(numbers <= embed_limit || numbers > library::most_drawn(d))) {
    arrays.merge(weights);
  }
  arrays["digest"] = StoredArray::of(library::content_digest(arrays));
  library::write_npz(path, arrays);
}

}  // namespace krrdistill
