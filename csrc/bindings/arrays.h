// NumPy arrays to the plain structures of the core. Shapes were checked in Python; what is checked here is what
// memory safety needs.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "krrdistill/feature_map.h"
#include "krrdistill/statistics.h"

namespace krrdistill::bindings {

namespace py = pybind11;

template <typename T>
using Array = py::array_t<T, py::array::c_style>;
using Rows = std::optional<Array<int64_t>>;

[[noreturn]] inline void bad_argument(const std::string& message) { throw py::value_error("krrdistill: " + message); }

inline void require(bool condition, const char* message) {
  if (!condition) {
    bad_argument(message);
  }
}

// A Python object as a U; a cast that fails would be a RuntimeError.
template <typename U>
U convert(const py::handle& object, const char* message) {
  try {
    return object.cast<U>();
  } catch (const py::cast_error&) {
    bad_argument(message);
  }
}

// NumPy takes buffers at any address; the core reads and writes whole numbers.
template <typename... Arrays>
void require_aligned(const Arrays&... arrays) {
  const auto aligned = [](const py::array& array) {
    return reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::uintptr_t>(array.itemsize()) == 0;
  };
  require((aligned(arrays) && ...), "arrays must be aligned to their items");
}

// Row numbers that the core trusts after a check: a copy, as another thread may change an array meanwhile.
inline Array<int64_t> settled(const Array<int64_t>& rows) {
  require_aligned(rows);
  return Array<int64_t>(rows.size(), rows.data());
}

inline Rows settled(const Rows& rows) { return rows ? Rows(settled(*rows)) : Rows(); }

inline void check_rows(const Array<int64_t>& rows, int64_t available) {
  require_aligned(rows);
  const int64_t* values = rows.data();
  for (py::ssize_t i = 0; i < rows.size(); ++i) {
    require(values[i] >= 0 && values[i] < available, "rows holds an index outside of the data");
  }
}

// `rows` must be settled, and outlive the input.
inline Input make_input(const py::array& x, const Rows& rows, int64_t input_dim) {
  require(x.ndim() == 2 && x.shape(1) == input_dim, "x must have shape (n, input_dim)");
  // Strides of an empty array, or along a dimension of one element, mean nothing.
  require(x.size() == 0 || x.shape(1) == 1 || x.strides(1) == x.itemsize(),
          "the last dimension of x must be contiguous");
  require(x.strides(0) % x.itemsize() == 0, "the row stride of x must be a multiple of its item size");
  Input input{.data = x.data(),
              .type = InputType::u8,
              .row_stride = x.strides(0) / x.itemsize(),
              .rows = nullptr,
              .n = x.shape(0)};
  if (py::isinstance<py::array_t<uint8_t>>(x)) {
    input.type = InputType::u8;
  } else if (py::isinstance<py::array_t<float>>(x)) {
    input.type = InputType::f32;
  } else if (py::isinstance<py::array_t<double>>(x)) {
    input.type = InputType::f64;
  } else if (x.dtype().equal(py::dtype("e"))) {
    input.type = InputType::f16;
  } else {
    bad_argument("x must be uint8, float16, float32 or float64");
  }
  require_aligned(x);
  if (rows) {
    check_rows(*rows, x.shape(0));
    input.rows = rows->data();
    input.n = rows->size();
  }
  return input;
}

// Targets, and the labels of the rows that are used: a batch may be a small part of the data.
struct HeldTargets {
  std::vector<int64_t> labels;
  Targets targets;
};

// Values of `y` stay where they are, labels are copied before they are checked.
inline HeldTargets make_targets(const py::array& y, int64_t k, int64_t rows_of_data, const Input& input) {
  require(y.ndim() >= 1 && y.shape(0) == rows_of_data, "y must have a row for each row of x");
  if (y.ndim() == 1 && py::isinstance<Array<int64_t>>(y)) {
    require_aligned(y);
    const auto* labels = static_cast<const int64_t*>(y.data());
    HeldTargets held{.labels = std::vector<int64_t>(static_cast<size_t>(input.n)), .targets = {}};
    for (int64_t i = 0; i < input.n; ++i) {
      const int64_t label = held.labels[static_cast<size_t>(i)] = labels[input.row_of(i)];
      require(label >= 0 && label < k, "a label lies outside of [0, k)");
    }
    held.targets = {.labels = held.labels.data(), .values = nullptr, .k = k, .gathered = true};
    return held;
  }
  require(y.ndim() == 2 && py::isinstance<Array<double>>(y) && y.shape(1) == k, "y: int64 (n,) or float64 (n, k)");
  require_aligned(y);
  return {.labels = {}, .targets = {.labels = nullptr, .values = static_cast<const double*>(y.data()), .k = k}};
}

// A structured weight of `inputs` columns from (diagonals (rounds, 2, block), scale (outputs)), which must outlive it.
template <typename T>
Hadamard<T> make_hadamard(const Array<T>& diagonals, const Array<T>& scale, int64_t inputs) {
  require(diagonals.ndim() == 3 && diagonals.shape(1) == 2, "diagonals: (rounds, 2, block)");
  require_aligned(diagonals, scale);
  const int64_t block = diagonals.shape(2);
  require(std::has_single_bit(static_cast<uint64_t>(block)) && block <= inputs && inputs < 2 * block,
          "block: the largest power of two <= inputs");
  require(scale.ndim() == 1 && scale.size() >= 1 && scale.size() <= inputs, "scale: (outputs), at most inputs");
  return {.diagonals = diagonals.data(),
          .scale = scale.data(),
          .rounds = diagonals.shape(0),
          .block = block,
          .inputs = inputs,
          .outputs = scale.size()};
}

// A feature map that keeps its arrays alive.
template <typename T>
class MapHandle {
 public:
  MapHandle(int64_t input_dim, std::optional<Array<double>> scale, std::optional<Array<double>> shift,
            const py::list& layers)
      : scale_(std::move(scale)), shift_(std::move(shift)) {
    require(input_dim >= 1, "input_dim must be at least 1");
    require(scale_.has_value() == shift_.has_value(), "scale and shift come together");
    require(!scale_ || scale_->size() == input_dim, "scale: (input_dim,)");
    require(!shift_ || shift_->size() == input_dim, "shift: (input_dim,)");
    if (scale_ && shift_) {
      require_aligned(*scale_, *shift_);
    }
    map_.input_dim = input_dim;
    map_.scale = scale_ ? scale_->data() : nullptr;
    map_.shift = shift_ ? shift_->data() : nullptr;
    int64_t width = input_dim;
    for (const auto& item : layers) {
      constexpr const char* form = "a layer is (weight, bias, activation, parameter)";
      const auto entry = convert<py::tuple>(item, form);
      require(entry.size() == 4, form);
      Layer<T> layer = weighted(entry[0], width);
      const auto bias = convert<std::optional<Array<T>>>(entry[1], "bias: (outputs,) in the type of the map");
      require(!bias || bias->size() == layer.outputs, "bias: (outputs,)");
      layer.bias = bias ? keep(*bias) : nullptr;
      const int activation = convert<int>(entry[2], form);
      require(activation >= 0 && activation <= 2, "unknown activation");
      layer.activation = static_cast<Activation>(activation);
      layer.parameter = static_cast<T>(convert<double>(entry[3], form));
      map_.layers.push_back(layer);
      width = layer.outputs;
    }
  }

  [[nodiscard]] const FeatureMap<T>& map() const { return map_; }

 private:
  const T* keep(const Array<T>& array) {
    require_aligned(array);
    return arrays_.emplace_back(array).data();
  }

  // A layer of `inputs` columns that has nothing but its weight: dense, or a tuple (diagonals, scale).
  Layer<T> weighted(const py::handle& weight, int64_t inputs) {
    Layer<T> layer;
    layer.ld = layer.inputs = inputs;
    if (py::isinstance<py::tuple>(weight)) {
      const auto [diagonals, scale] =
          convert<std::pair<Array<T>, Array<T>>>(weight, "weight: (diagonals, scale) in the type of the map");
      layer.hadamard = make_hadamard(diagonals, scale, inputs);
      layer.outputs = layer.hadamard.outputs;
      keep(diagonals);
      keep(scale);
    } else {
      const auto dense = convert<Array<T>>(weight, "weight: (outputs, inputs of the layer)");
      require(dense.ndim() == 2 && dense.shape(0) >= 1 && dense.shape(1) == inputs,
              "weight: (outputs, inputs of the layer), at least one output");  // BLAS refuses matrices without columns
      layer.outputs = dense.shape(0);
      layer.weight = keep(dense);
    }
    return layer;
  }

  std::optional<Array<double>> scale_;
  std::optional<Array<double>> shift_;
  std::vector<Array<T>> arrays_;
  FeatureMap<T> map_;
};

}  // namespace krrdistill::bindings
