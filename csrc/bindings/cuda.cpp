#include "bindings/cuda.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <optional>

#include "bindings/arrays.h"
#include "bindings/errors.h"
#include "cuda/operations.h"

namespace krrdistill::bindings {
namespace {

using cuda::Context;

// The operations of module.cpp on one device, with the same arguments.
class Device {
 public:
  Device(int device, std::uintptr_t stream, int64_t memory_budget, bool tf32) {
    require(device >= 0, "device must not be negative");
    require(memory_budget >= 0, "memory_budget must not be negative");
    auto* handle = reinterpret_cast<void*>(stream);  // NOLINT(performance-no-int-to-ptr): what Python knows of a stream
    context_ = cuda::make_context({.device = device, .stream = handle, .memory_budget = memory_budget, .tf32 = tf32});
  }

  template <typename T>
  void transform(const MapHandle<T>& handle, const py::array& x, const Rows& rows, Array<T> out, int64_t tile_rows) {
    const Input input = make_input(x, rows, handle.map().input_dim);
    require(out.ndim() == 2 && out.shape(0) == input.n && out.shape(1) == handle.map().output_dim(),
            "out: (n, output_dim)");
    require(tile_rows >= 1, "tile_rows must be at least 1");
    T* target = out.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::transform(*context_, handle.map(), input, tile_rows, target);
  }

  template <typename T>
  void accumulate(const MapHandle<T>& handle, const py::array& x, const Rows& rows, const py::array& y,
                  Array<double> gram, Array<double> cross, int64_t tile_rows) {
    const Input input = make_input(x, rows, handle.map().input_dim);
    const int64_t p = handle.map().output_dim();
    require(gram.ndim() == 2 && gram.shape(0) == p && gram.shape(1) == p, "gram: (p, p)");
    require(cross.ndim() == 2 && cross.shape(1) == p, "cross: (k, p)");
    require(tile_rows >= 1, "tile_rows must be at least 1");
    const Targets targets = make_targets(y, cross.shape(0), x.shape(0), input);
    double* gram_data = gram.mutable_data();
    double* cross_data = cross.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::accumulate(*context_, handle.map(), input, targets, tile_rows, gram_data, cross_data);
  }

  void symmetrize(Array<double> gram) {
    require(gram.ndim() == 2 && gram.shape(0) == gram.shape(1), "gram: (p, p)");
    double* gram_data = gram.mutable_data();
    const int64_t p = gram.shape(0);
    const py::gil_scoped_release nogil;
    cuda::symmetrize(*context_, gram_data, p);
  }

  template <typename T>
  void score_path(const MapHandle<T>& handle, const py::array& x, const Rows& rows, const Array<int64_t>& labels,
                  const Array<T>& weights, Array<int64_t> correct, int64_t tile_rows) {
    const Input input = make_input(x, rows, handle.map().input_dim);
    require(weights.ndim() == 3 && weights.shape(2) == handle.map().output_dim(), "weights: (models, k, p)");
    const int64_t models = weights.shape(0), k = weights.shape(1);
    require(k >= 1, "weights need at least one class");
    require(labels.ndim() == 1 && labels.shape(0) == x.shape(0), "labels: (n,)");
    require(correct.size() == models, "correct: (models,)");
    require(tile_rows >= 1, "tile_rows must be at least 1");
    int64_t* correct_data = correct.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::score_path(*context_, handle.map(), input, labels.data(), weights.data(), models, k, tile_rows, correct_data);
  }

  double ridge_path(const Array<double>& gram, const Array<double>& cross, const Array<double>& lambdas,
                    double rounding, Array<double> weights, Array<bool> positive_definite, Array<bool> resolved) {
    require(gram.ndim() == 2 && gram.shape(0) == gram.shape(1) && gram.shape(0) >= 1, "gram: (p, p)");
    const int64_t p = gram.shape(0);
    require(cross.ndim() == 2 && cross.shape(1) == p, "cross: (k, p)");
    const int64_t k = cross.shape(0), count = lambdas.size();
    require(weights.size() == count * k * p, "weights: (lambdas, k, p)");
    require(positive_definite.size() == count && resolved.size() == count, "positive_definite, resolved: (lambdas,)");
    auto* definite_data = reinterpret_cast<unsigned char*>(positive_definite.mutable_data());
    auto* resolved_data = reinterpret_cast<unsigned char*>(resolved.mutable_data());
    double* weight_data = weights.mutable_data();
    const py::gil_scoped_release nogil;
    return cuda::ridge_path(*context_, gram.data(), cross.data(), p, k, lambdas.data(), count, rounding, weight_data,
                            definite_data, resolved_data);
  }

  void solve_spd(const Array<double>& a, Array<double> rhs) {
    require(a.ndim() == 3 && a.shape(1) == a.shape(2), "a: (batch, n, n)");
    require(rhs.ndim() == 3 && rhs.shape(0) == a.shape(0) && rhs.shape(2) == a.shape(1), "rhs: (batch, r, n)");
    double* rhs_data = rhs.mutable_data();
    const int64_t batch = a.shape(0), n = a.shape(1), r = rhs.shape(1);
    const py::gil_scoped_release nogil;
    cuda::solve_spd(*context_, a.data(), rhs_data, batch, n, r);
  }

  double preimage_solve(const Array<double>& weight, const Array<double>& rhs, Array<double> x, double rcond_floor) {
    require(weight.ndim() == 2 && weight.shape(0) >= 1 && weight.shape(0) <= weight.shape(1), "weight: (p, d), p <= d");
    const int64_t p = weight.shape(0), d = weight.shape(1);
    require(rhs.ndim() == 2 && rhs.shape(1) == p, "rhs: (m, p)");
    const int64_t m = rhs.shape(0);
    require(x.ndim() == 2 && x.shape(0) == m && x.shape(1) == d, "x: (m, d)");
    double* x_data = x.mutable_data();
    const py::gil_scoped_release nogil;
    return cuda::preimage_solve(*context_, weight.data(), rhs.data(), x_data, p, d, m, rcond_floor);
  }

  void hadamard_solve(const Array<double>& diagonals, const Array<double>& scale, const Array<double>& rhs,
                      Array<double> x) {
    require(x.ndim() == 2, "x: (m, d)");
    const Hadamard<double> weight = make_hadamard(diagonals, scale, x.shape(1));
    const int64_t m = x.shape(0);
    require(rhs.ndim() == 2 && rhs.shape(0) == m && rhs.shape(1) == weight.outputs, "rhs: (m, p)");
    double* x_data = x.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::hadamard_solve(*context_, weight, rhs.data(), x_data, m);
  }

 private:
  std::shared_ptr<Context> context_;
};

template <typename T>
void bind_map(py::module_& module, py::class_<Device>& device, const char* map_name) {
  py::class_<MapHandle<T>>(module, map_name, py::module_local())
      .def(py::init<int64_t, std::optional<Array<T>>, std::optional<Array<T>>, const py::list&>(), py::arg("input_dim"),
           py::arg("scale"), py::arg("shift"), py::arg("layers"));
  device
      .def("transform", &Device::transform<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
           py::arg("out").noconvert(), py::arg("tile_rows"))
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
  py::class_<Device> device(module, "Device", py::module_local());
  device
      .def(py::init<int, std::uintptr_t, int64_t, bool>(), py::kw_only(), py::arg("device"), py::arg("stream"),
           py::arg("memory_budget"), py::arg("tf32"))
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
