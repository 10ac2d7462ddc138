#include "bindings/cuda.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/checks.h"
#include "bindings/dlpack.h"
#include "bindings/errors.h"
#include "cuda/operations.h"

namespace krrdistill::bindings {
namespace {

using cuda::Context;

// Rows of data and what keeps them where they are.
struct Data {
  cuda::Source source;
  int64_t rows = 0;  // before the gather
  std::optional<dlpack::Borrowed> owner = std::nullopt;
};

InputType input_type(const dlpack::Type& type) {
  const auto is = [&type](uint8_t code, uint8_t bits) {
    return type.code == code && type.bits == bits && type.lanes == 1;
  };
  if (is(dlpack::unsigned_integer, 8)) {
    return InputType::u8;
  }
  require(is(dlpack::floating, 32) || is(dlpack::floating, 64), "x must be uint8, float32 or float64");
  return type.bits == 32 ? InputType::f32 : InputType::f64;
}

Data borrow(dlpack::Borrowed owner, const Rows& rows, int64_t input_dim) {
  const dlpack::Tensor& x = owner.tensor();
  require(x.ndim == 2 && x.shape[1] == input_dim, "x must have shape (n, input_dim)");
  const auto* data = static_cast<const std::byte*>(x.data) + x.byte_offset;
  const InputType type = input_type(x.type);
  require(reinterpret_cast<std::uintptr_t>(data) % (x.type.bits / 8) == 0, "x must be aligned to its items");
  Data result{.source = {{.data = data,
                          .type = type,
                          .row_stride = x.strides == nullptr ? input_dim : x.strides[0],
                          .rows = nullptr,
                          .n = x.shape[0]},
                         true,
                         x.strides == nullptr || input_dim == 1 ? 1 : x.strides[1]},
              .rows = x.shape[0]};
  if (rows) {
    check_rows(*rows, x.shape[0]);
    result.source.rows = rows->data();
    result.source.n = rows->size();
  }
  result.owner = std::move(owner);
  return result;
}

cuda::Products products_of(const std::string& name) {
  require(name == "auto" || name == "fp32" || name == "tf32", "products must be auto, fp32 or tf32");
  return name == "auto" ? cuda::Products::automatic : name == "fp32" ? cuda::Products::fp32 : cuda::Products::tf32;
}

const char* name_of(cuda::Arithmetic arithmetic) {
  switch (arithmetic) {
    case cuda::Arithmetic::float64:
      return "float64";
    case cuda::Arithmetic::integers:
      return "integers";
    case cuda::Arithmetic::slices:
      return "slices";
    case cuda::Arithmetic::float32:
      return "float32";
    default:
      return "tf32";
  }
}

// The operations of module.cpp on one device, with the same arguments.
class Device {
 public:
  Device(int device, std::uintptr_t stream, int64_t memory_budget, const std::string& products) {
    require(device >= 0, "device must not be negative");
    require(memory_budget >= 0, "memory_budget must not be negative");
    device_ = device;
    auto* handle = reinterpret_cast<void*>(stream);  // NOLINT(performance-no-int-to-ptr): what Python knows of a stream
    context_ = cuda::make_context(
        {.device = device, .stream = handle, .memory_budget = memory_budget, .products = products_of(products)});
  }

  template <typename T>
  void transform(const MapHandle<T>& handle, const py::array& x, const Rows& rows, Array<T> out, int64_t tile_rows) {
    const Data data = read(x, rows, handle.map().input_dim);
    check_features(out, data.source.n, handle.map().output_dim());
    check_tile_rows(tile_rows);
    T* target = out.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::transform(*context_, handle.map(), data.source, tile_rows, target);
  }

  // For x on the device: features that stay there.
  template <typename T>
  dlpack::Matrix transform_there(const MapHandle<T>& handle, const py::object& x, const Rows& rows, int64_t tile_rows) {
    const Data data = read(x, rows, handle.map().input_dim);
    require(data.source.on_device, "x must be on the device");
    check_tile_rows(tile_rows);
    constexpr dlpack::Type type{.code = dlpack::floating, .bits = 8 * sizeof(T), .lanes = 1};
    std::shared_ptr<T> features;
    {
      const py::gil_scoped_release nogil;
      features = cuda::transform_there(*context_, handle.map(), data.source, tile_rows);
    }
    const int64_t p = handle.map().output_dim();
    return {std::move(features), type, {data.source.n, p}, {p, 1}, device_};
  }

  // (arithmetic of the products, bound on their relative error)
  template <typename T>
  std::pair<std::string, double> accumulate(const MapHandle<T>& handle, const py::object& x, const Rows& rows,
                                            const py::array& y, Array<double> gram, Array<double> cross,
                                            int64_t tile_rows) {
    const Data data = read(x, rows, handle.map().input_dim);
    check_sums(gram, cross, handle.map().output_dim());
    check_tile_rows(tile_rows);
    const Targets targets = make_targets(y, cross.shape(0), data.rows, data.source);
    double* gram_data = gram.mutable_data();
    double* cross_data = cross.mutable_data();
    const py::gil_scoped_release nogil;
    const cuda::Formed formed =
        cuda::accumulate(*context_, handle.map(), data.source, targets, tile_rows, gram_data, cross_data);
    return {name_of(formed.arithmetic), formed.bound};
  }

  void symmetrize(Array<double> gram) {
    const int64_t p = check_gram(gram);
    double* gram_data = gram.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::symmetrize(*context_, gram_data, p);
  }

  template <typename T>
  void score_path(const MapHandle<T>& handle, const py::object& x, const Rows& rows, const Array<int64_t>& labels,
                  const Array<T>& weights, Array<int64_t> correct, int64_t tile_rows) {
    const Data data = read(x, rows, handle.map().input_dim);
    const auto [models, k] = check_scores(labels, weights, correct, data.rows, handle.map().output_dim());
    check_tile_rows(tile_rows);
    int64_t* correct_data = correct.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::score_path(*context_, handle.map(), data.source, labels.data(), weights.data(), models, k, tile_rows,
                     correct_data);
  }

  double ridge_path(const Array<double>& gram, const Array<double>& cross, const Array<double>& lambdas,
                    double rounding, Array<double> weights, Array<bool> positive_definite, Array<bool> resolved) {
    const auto [p, k, count] = check_path(gram, cross, lambdas, weights, positive_definite, resolved);
    unsigned char* definite_data = flags(positive_definite);
    unsigned char* resolved_data = flags(resolved);
    double* weight_data = weights.mutable_data();
    const py::gil_scoped_release nogil;
    return cuda::ridge_path(*context_, gram.data(), cross.data(), p, k, lambdas.data(), count, rounding, weight_data,
                            definite_data, resolved_data);
  }

  void solve_spd(const Array<double>& a, Array<double> rhs) {
    const auto [batch, n, r] = check_systems(a, rhs);
    double* rhs_data = rhs.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::solve_spd(*context_, a.data(), rhs_data, batch, n, r);
  }

  double preimage_solve(const Array<double>& weight, const Array<double>& rhs, Array<double> x, double rcond_floor) {
    const auto [p, d, m] = check_preimages(weight, rhs, x);
    double* x_data = x.mutable_data();
    const py::gil_scoped_release nogil;
    return cuda::preimage_solve(*context_, weight.data(), rhs.data(), x_data, p, d, m, rcond_floor);
  }

  void hadamard_solve(const Array<double>& diagonals, const Array<double>& scale, const Array<double>& rhs,
                      Array<double> x) {
    const Hadamard<double> weight = check_structured(diagonals, scale, rhs, x);
    const int64_t m = x.shape(0);
    double* x_data = x.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::hadamard_solve(*context_, weight, rhs.data(), x_data, m);
  }

 private:
  // x in host memory, or an array on this device that has __dlpack__.
  [[nodiscard]] Data read(const py::object& x, const Rows& rows, int64_t input_dim) const {
    if (py::isinstance<py::array>(x)) {
      const auto array = py::reinterpret_borrow<py::array>(x);
      return {.source = {make_input(array, rows, input_dim)}, .rows = array.shape(0)};
    }
    const auto stream = reinterpret_cast<int64_t>(cuda::reading_stream(*context_));
    return borrow(dlpack::Borrowed(x, device_, stream), rows, input_dim);
  }

  std::shared_ptr<Context> context_;
  int device_ = 0;
};

template <typename T>
void bind_map(py::module_& module, py::class_<Device>& device, const char* map_name) {
  py::class_<MapHandle<T>>(module, map_name, py::module_local())
      .def(py::init<int64_t, std::optional<Array<double>>, std::optional<Array<double>>, const py::list&>(),
           py::arg("input_dim"), py::arg("scale"), py::arg("shift"), py::arg("layers"));
  device
      .def("transform", &Device::transform<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
           py::arg("out").noconvert(), py::arg("tile_rows"))
      .def("transform_there", &Device::transform_there<T>, py::arg("feature_map"), py::arg("x"),
           py::arg("rows").none(true), py::arg("tile_rows"))
      .def("accumulate", &Device::accumulate<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
           py::arg("y"), py::arg("gram").noconvert(), py::arg("cross").noconvert(), py::arg("tile_rows"))
      .def("score_path", &Device::score_path<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
           py::arg("labels").noconvert(), py::arg("weights").noconvert(), py::arg("correct").noconvert(),
           py::arg("tile_rows"));
}

py::dict driver_facts() {
  const cuda::DriverFacts facts = cuda::driver_facts();
  py::list devices;
  for (const auto& device : facts.devices) {
    py::dict entry;
    entry["name"] = device.name;
    entry["compute_capability"] = py::make_tuple(device.major, device.minor);
    entry["memory_bytes"] = device.memory;
    devices.append(entry);
  }
  py::dict result;
  result["driver"] = facts.driver;
  result["runtime"] = facts.runtime;
  result["error"] = facts.error;
  result["devices"] = devices;
  return result;
}

}  // namespace

void bind_cuda(py::module_& module, bool emulated) {
  py::register_local_exception_translator(&translate);
  py::class_<dlpack::Matrix>(module, "DeviceMatrix", py::module_local())
      .def("__dlpack_device__", &dlpack::Matrix::place)
      .def("__dlpack__", &dlpack::Matrix::share, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(), py::arg("copy") = py::none());
  py::class_<Device> device(module, "Device", py::module_local());
  device
      .def(py::init<int, std::uintptr_t, int64_t, const std::string&>(), py::kw_only(), py::arg("device"),
           py::arg("stream"), py::arg("memory_budget"), py::arg("products"))
      .def("symmetrize", &Device::symmetrize, py::arg("gram").noconvert())
      .def("ridge_path", &Device::ridge_path, py::arg("gram"), py::arg("cross"), py::arg("lambdas"),
           py::arg("rounding"), py::arg("weights").noconvert(), py::arg("positive_definite").noconvert(),
           py::arg("resolved").noconvert())
      .def("solve_spd", &Device::solve_spd, py::arg("a"), py::arg("rhs").noconvert())
      .def("preimage_solve", &Device::preimage_solve, py::arg("weight"), py::arg("rhs"), py::arg("x").noconvert(),
           py::arg("rcond_floor"))
      .def("hadamard_solve", &Device::hadamard_solve, py::arg("diagonals"), py::arg("scale"), py::arg("rhs"),
           py::arg("x").noconvert());
  bind_map<float>(module, device, "FeatureMapF32");
  bind_map<double>(module, device, "FeatureMapF64");
  module.def("driver_facts", &driver_facts);
  module.attr("emulated") = emulated;
}

}  // namespace krrdistill::bindings
