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
#include "bindings/cuda_dense.h"
#include "bindings/dlpack.h"
#include "bindings/errors.h"
#include "cuda/operations.h"

namespace krrdistill::bindings {
namespace {

using cuda::Context;

// Rows of data and what keeps them where they are.
struct Data {
  cuda::Source source;
  int64_t rows = 0;            // before the gather
  Rows chosen = std::nullopt;  // the numbers of those that are read
  std::optional<dlpack::Borrowed> owner = std::nullopt;
};

InputType input_type(const dlpack::Type& type) {
  const auto is = [&type](uint8_t code, uint8_t bits) {
    return type.code == code && type.bits == bits && type.lanes == 1;
  };
  if (is(dlpack::unsigned_integer, 8)) {
    return InputType::u8;
  }
  if (is(dlpack::bfloat, 16)) {
    return InputType::bf16;
  }
  if (is(dlpack::floating, 16)) {
    return InputType::f16;
  }
  require(is(dlpack::floating, 32) || is(dlpack::floating, 64),
          "x must be uint8, float16, bfloat16, float32 or float64");
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
  result.chosen = rows;
  result.owner = std::move(owner);
  return result;
}

// G as operations get it: an array of the host, or the DeviceGram of this context. Throws TypeError for anything else.
struct GramArgument {
  cuda::Gram gram;
  int64_t order = 0;
  Array<double> host;
  std::shared_ptr<cuda::ResidentGram> resident;
};

// The copy of a weight on the device, and what it is in.
struct Kept {
  std::shared_ptr<Context> context;
  std::shared_ptr<const void> copy;
};

// The models of a path where they are, and what copies them from there.
struct ModelStack {
  std::shared_ptr<Context> context;
  cuda::Models models;
  int device;

  [[nodiscard]] py::tuple shape() const { return py::make_tuple(models.count, models.k, models.p); }

  void download(const Array<int64_t>& asked, Array<double> out) const {
    const Array<int64_t> rows = settled(asked);
    check_rows(rows, models.count * models.k);
    require(out.ndim() == 2 && out.shape(0) == rows.size() && out.shape(1) == models.p, "out: (rows, p)");
    double* out_data = out.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::download_rows(*context, models, rows.data(), rows.size(), out_data);
  }

  void multiply(const Array<double>& vector, Array<double> out) const {
    require(vector.ndim() == 1 && vector.shape(0) == models.p, "vector: (p,)");
    require(out.ndim() == 2 && out.shape(0) == models.count && out.shape(1) == models.k, "out: (models, k)");
    double* out_data = out.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::multiply_models(*context, models, vector.data(), out_data);
  }
};

cuda::Products products_of(const std::string& name) {
  if (name == "auto") {
    return cuda::Products::automatic;
  }
  require(name == "fp32" || name == "tf32", "products must be auto, fp32 or tf32");
  return name == "fp32" ? cuda::Products::fp32 : cuda::Products::tf32;
}

const char* name_of(cuda::Arithmetic arithmetic) {
  switch (arithmetic) {
    case cuda::Arithmetic::float64:
      return "float64";
    case cuda::Arithmetic::integers:
      return "integers";
    case cuda::Arithmetic::halves:
      return "halves";
    case cuda::Arithmetic::slices:
      return "slices";
    case cuda::Arithmetic::float32:
      return "float32";
    default:
      return "tf32";
  }
}

// The operations of module.cpp on one device, with the same arguments where data are in host memory.
class Device {
 public:
  Device(int device, std::uintptr_t stream, int64_t memory_budget, const std::string& products, bool keep_memory) {
    require(device >= 0, "device must not be negative");
    require(memory_budget >= 0, "memory_budget must not be negative");
    device_ = device;
    auto* handle = reinterpret_cast<void*>(stream);  // NOLINT(performance-no-int-to-ptr): what Python knows of a stream
    context_ = cuda::make_context({.device = device,
                                   .stream = handle,
                                   .memory_budget = memory_budget,
                                   .products = products_of(products),
                                   .keep_memory = keep_memory});
  }

  [[nodiscard]] std::shared_ptr<cuda::ResidentGram> zero_gram(int64_t p) const {
    constexpr int64_t most = 500'000'000;
    require(p >= 0 && p < most, "p must not be negative, and the bytes of G must fit 64 bits");
    const py::gil_scoped_release nogil;
    return std::make_shared<cuda::ResidentGram>(context_, p);
  }

  [[nodiscard]] bool owns(const cuda::ResidentGram& gram) const { return gram.context() == context_.get(); }

  template <typename T>
  [[nodiscard]] Kept keep_weight(const Array<T>& weight) const {
    require(weight.ndim() == 2, "weight: (outputs, inputs)");
    const T* data = weight.data();
    const int64_t rows = weight.shape(0), width = weight.shape(1);
    const py::gil_scoped_release nogil;
    return {context_, cuda::keep_weight(*context_, data, rows, width)};
  }

  void release_memory() {
    const py::gil_scoped_release nogil;
    cuda::release_memory(*context_);
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
                                            const py::array& y, const py::object& gram, Array<double> cross,
                                            int64_t tile_rows) {
    const Data data = read(x, rows, handle.map().input_dim);
    const GramArgument sum = sum_of(gram);
    require(sum.order == handle.map().output_dim(), "gram: (p, p)");
    require(cross.ndim() == 2 && cross.shape(1) == sum.order, "cross: (k, p)");
    check_tile_rows(tile_rows);
    const HeldTargets held = make_targets(y, cross.shape(0), data.rows, data.source);
    double* cross_data = cross.mutable_data();
    const py::gil_scoped_release nogil;
    const cuda::Formed formed =
        cuda::accumulate(*context_, handle.map(), data.source, held.targets, tile_rows, sum.gram, cross_data);
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

  template <typename T>
  void scores(const MapHandle<T>& handle, const py::object& x, const Rows& rows, const Array<double>& weights,
              Array<double> out, int64_t tile_rows) {
    const Data data = read(x, rows, handle.map().input_dim);
    require(weights.ndim() == 2 && weights.shape(1) == handle.map().output_dim(), "weights: (r, p)");
    require(out.ndim() == 2 && out.shape(0) == data.source.n && out.shape(1) == weights.shape(0), "out: (n, r)");
    check_tile_rows(tile_rows);
    double* target = out.mutable_data();
    const int64_t r = weights.shape(0);
    const py::gil_scoped_release nogil;
    cuda::scores(*context_, handle.map(), data.source, weights.data(), r, tile_rows, target);
  }

  [[nodiscard]] Dense dense() const { return Dense(context_); }

  // phi(x) in float64, which stays on the device; x is an array of the host, or stays there too.
  [[nodiscard]] ResidentMatrix features(const MapHandle<double>& handle, const py::object& x, int64_t tile_rows) const {
    const bool here = py::isinstance<ResidentMatrix>(x);
    Data data = here ? Data() : read(x, std::nullopt, handle.map().input_dim);
    if (here) {
      const cuda::Operand matrix = operand_of(context_, x);
      require(matrix.columns == handle.map().input_dim, "x must have shape (n, input_dim)");
      data.source = {{.data = matrix.data,
                      .type = InputType::f64,
                      .row_stride = matrix.row_stride(),
                      .rows = nullptr,
                      .n = matrix.rows},
                     true,
                     matrix.column_stride()};
    }
    check_tile_rows(tile_rows);
    cuda::Resident made;
    {
      const py::gil_scoped_release nogil;
      made = cuda::transform_here(*context_, handle.map(), data.source, tile_rows);
    }
    return {.context = context_, .data = std::move(made), .rows = data.source.n, .columns = handle.map().output_dim()};
  }

  // Whether they are a stack of this module on this device.
  [[nodiscard]] bool has(const py::object& models) const {
    return py::isinstance<ModelStack>(models) && models.cast<const ModelStack&>().device == device_;
  }

  template <typename T>
  void score_models(const MapHandle<T>& handle, const py::object& x, const Rows& rows, const Array<int64_t>& labels,
                    const ModelStack& stack, Array<int64_t> correct, int64_t tile_rows) {
    const Data data = read(x, rows, handle.map().input_dim);
    const cuda::Models& models = stack.models;
    require(stack.device == device_, "the models must be on this device");
    require(models.p == handle.map().output_dim(), "weights: (models, k, p)");
    check_scores(labels, models.count, models.k, correct, data.rows);
    check_tile_rows(tile_rows);
    int64_t* correct_data = correct.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::score_models(*context_, handle.map(), data.source, labels.data(), models, tile_rows, correct_data);
  }

  std::pair<ModelStack, double> ridge_path(const py::object& gram, const Array<double>& cross,
                                           const Array<double>& lambdas, double rounding, Array<double> squares,
                                           Array<double> products, Array<bool> positive_definite,
                                           Array<bool> resolved) {
    const GramArgument sum = sum_of(gram);
    require(sum.order >= 1, "gram: (p, p)");
    cuda::SymmetricMatrix matrix{.data = sum.gram.host, .p = sum.order};
    if (sum.resident) {
      const py::gil_scoped_release nogil;
      matrix = {.data = sum.resident->symmetric(), .p = sum.order, .on_device = true};
    }
    return path_of(matrix, cross, lambdas, rounding, squares, products, positive_definite, resolved);
  }

  void solve_spd(const Array<double>& a, Array<double> rhs) {
    const auto [batch, n, r] = check_systems(a, rhs);
    double* rhs_data = rhs.mutable_data();
    const py::gil_scoped_release nogil;
    cuda::solve_spd(*context_, a.data(), rhs_data, batch, n, r);
  }

  template <typename T>
  double preimage_solve(const Array<T>& weight, const Array<double>& rhs, Array<double> x, double rcond_floor) {
    const auto [p, d, m] = check_preimages(weight, rhs, x);
    double* x_data = x.mutable_data();
    const py::gil_scoped_release nogil;
    return cuda::preimage_solve(*context_, weight.data(), rhs.data(), x_data, p, d, m, rcond_floor);
  }

  // (x, see preimage_solve) of right sides on the device, where x stays.
  template <typename T>
  std::pair<ResidentMatrix, double> preimages_here(const Array<T>& weight, const ResidentMatrix& rhs, double floor) {
    require(weight.ndim() == 2 && weight.shape(0) >= 1 && weight.shape(0) <= weight.shape(1), "weight: (p, d), p <= d");
    require_aligned(weight);
    const cuda::Operand right = rows_of_features(rhs, weight.shape(0));
    const int64_t d = weight.shape(1);
    const T* data = weight.data();
    cuda::Preimages found;
    {
      const py::gil_scoped_release nogil;
      found = cuda::preimages_here(*context_, data, right, d, floor);
    }
    return {{.context = context_, .data = std::move(found.x), .rows = right.rows, .columns = d}, found.rcond};
  }

  ResidentMatrix hadamard_preimages_here(const Array<double>& diagonals, const Array<double>& scale, int64_t inputs,
                                         const ResidentMatrix& rhs) {
    const Hadamard<double> weight = make_hadamard(diagonals, scale, inputs);
    const cuda::Operand right = rows_of_features(rhs, weight.outputs);
    cuda::Resident found;
    {
      const py::gil_scoped_release nogil;
      found = cuda::hadamard_preimages_here(*context_, weight, right);
    }
    return {.context = context_, .data = std::move(found), .rows = right.rows, .columns = inputs};
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
  [[nodiscard]] cuda::Operand rows_of_features(const ResidentMatrix& rhs, int64_t p) const {
    require(rhs.context == context_, "the matrix is of another backend");
    require(rhs.columns == p && !rhs.by_columns, "rhs: (m, p), by rows");
    return rhs.operand();
  }

  // x in host memory, or an array on this device that has __dlpack__.
  [[nodiscard]] Data read(const py::object& x, const Rows& asked, int64_t input_dim) const {
    const Rows rows = settled(asked);
    if (py::isinstance<py::array>(x)) {
      const auto array = py::reinterpret_borrow<py::array>(x);
      return {.source = {make_input(array, rows, input_dim)}, .rows = array.shape(0), .chosen = rows};
    }
    const cuda::CurrentDevice current(device_);  // PyTorch shares an array of no other device
    const auto stream = reinterpret_cast<int64_t>(cuda::reading_stream(*context_));
    return borrow(dlpack::Borrowed(x, device_, stream), rows, input_dim);
  }

  [[nodiscard]] GramArgument sum_of(const py::object& gram) const {
    GramArgument result;
    if (py::isinstance<cuda::ResidentGram>(gram)) {
      result.resident = gram.cast<std::shared_ptr<cuda::ResidentGram>>();
      require(owns(*result.resident), "gram is of another backend");
      result.gram.resident = result.resident.get();
      result.order = result.resident->order();
      return result;
    }
    if (!Array<double>::check_(gram)) {
      throw py::type_error("gram must be a float64 array (p, p), C-contiguous, or a DeviceGram");
    }
    result.host = py::reinterpret_borrow<Array<double>>(gram);
    result.order = check_gram(result.host);
    result.gram.host = result.host.mutable_data();
    return result;
  }

  // (models, largest eigenvalue of G). squares and products (lambdas,) are ||W||^2 and <W, cross>.
  std::pair<ModelStack, double> path_of(const cuda::SymmetricMatrix& gram, const Array<double>& cross,
                                        const Array<double>& lambdas, double rounding, Array<double>& squares,
                                        Array<double>& products, Array<bool>& positive_definite,
                                        Array<bool>& resolved) {
    const int64_t count = lambdas.size();
    require(cross.ndim() == 2 && cross.shape(1) == gram.p, "cross: (k, p)");
    require(squares.size() == count && products.size() == count, "squares, products: (lambdas,)");
    require(positive_definite.size() == count && resolved.size() == count, "positive_definite, resolved: (lambdas,)");
    double largest = 0.0;
    const cuda::PathFacts facts{.squares = squares.mutable_data(),
                                .products = products.mutable_data(),
                                .positive_definite = flags(positive_definite),
                                .resolved = flags(resolved),
                                .largest_eigenvalue = &largest};
    const int64_t k = cross.shape(0);
    cuda::Models models;
    {
      const py::gil_scoped_release nogil;
      models = cuda::ridge_path(*context_, gram, cross.data(), k, lambdas.data(), count, rounding, facts);
    }
    return {{.context = context_, .models = std::move(models), .device = device_}, largest};
  }

  std::shared_ptr<Context> context_;
  int device_ = 0;
};

void bind_packed(py::module_& module) {
  using cuda::PackedGram;
  py::class_<PackedGram>(module, "PackedGram", py::module_local())
      .def("__len__", &PackedGram::count)
      .def("shared",
           [](const PackedGram& self) {
             constexpr dlpack::Type type{.code = dlpack::floating, .bits = 64, .lanes = 1};
             return dlpack::Matrix(self.numbers, type, {1, self.count()}, {self.count(), 1},
                                   cuda::device_of(*self.context));
           })
      .def(
          "write",
          [](const PackedGram& self, const Array<double>& numbers) {
            require(numbers.size() == self.room, "numbers: (room,)");
            const double* data = numbers.data();
            const py::gil_scoped_release nogil;
            self.write(data);
          },
          py::arg("numbers"))
      .def(
          "read",
          [](const PackedGram& self, Array<double> out) {
            require(out.size() == self.room, "out: (room,)");
            double* data = out.mutable_data();
            const py::gil_scoped_release nogil;
            self.read(data);
          },
          py::arg("out").noconvert())
      .def("unpacked", &PackedGram::unpacked, py::call_guard<py::gil_scoped_release>());
}

void check_order(const cuda::ResidentGram& gram, const Array<double>& other) {
  require(check_gram(other) == gram.order(), "gram: (p, p)");
}

void bind_gram(py::module_& module) {
  using cuda::ResidentGram;
  py::class_<ResidentGram, std::shared_ptr<ResidentGram>>(module, "DeviceGram", py::module_local())
      .def("__len__", &ResidentGram::order)
      .def_property_readonly("device", [](const ResidentGram& self) { return cuda::device_of(*self.context()); })
      .def(
          "packed",
          [](const ResidentGram& self, int64_t room) {
            require(room >= 0, "room must not be negative");
            const py::gil_scoped_release nogil;
            return self.packed(room);
          },
          py::arg("room"))
      .def("clear", &ResidentGram::clear, py::call_guard<py::gil_scoped_release>())
      .def(
          "is_beside",
          [](const ResidentGram& self, const ResidentGram& other) { return self.context() == other.context(); },
          py::arg("other"))
      .def("trace", &ResidentGram::trace, py::call_guard<py::gil_scoped_release>())
      .def("copy", &ResidentGram::copy, py::call_guard<py::gil_scoped_release>())
      .def(
          "add",
          [](ResidentGram& self, const ResidentGram& other, double sign) {
            const py::gil_scoped_release nogil;
            self.add(other, sign);
          },
          py::arg("other"), py::arg("sign"))
      .def(
          "add",
          [](ResidentGram& self, const Array<double>& other, double sign) {
            check_order(self, other);
            const double* data = other.data();
            const py::gil_scoped_release nogil;
            self.add(data, sign);
          },
          py::arg("other"), py::arg("sign"))
      .def(
          "download",
          [](ResidentGram& self, Array<double> out) {
            check_order(self, out);
            double* data = out.mutable_data();
            const py::gil_scoped_release nogil;
            self.download(data);
          },
          py::arg("out").noconvert());
}

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
           py::arg("y"), py::arg("gram"), py::arg("cross").noconvert(), py::arg("tile_rows"))
      .def("score_path", &Device::score_path<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
           py::arg("labels").noconvert(), py::arg("weights").noconvert(), py::arg("correct").noconvert(),
           py::arg("tile_rows"))
      .def("scores", &Device::scores<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
           py::arg("weights").noconvert(), py::arg("out").noconvert(), py::arg("tile_rows"))
      .def("score_models", &Device::score_models<T>, py::arg("feature_map"), py::arg("x"), py::arg("rows").none(true),
           py::arg("labels").noconvert(), py::arg("models"), py::arg("correct").noconvert(), py::arg("tile_rows"));
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
  bind_gram(module);
  bind_packed(module);
  bind_dense(module);
  py::class_<Kept>(module, "Kept", py::module_local()).def_property_readonly("stays", [](const Kept& kept) {
    return kept.copy != nullptr;
  });
  py::class_<ModelStack>(module, "ModelStack", py::module_local())
      .def_property_readonly("shape", &ModelStack::shape)
      .def("download", &ModelStack::download, py::arg("rows").noconvert(), py::arg("out").noconvert())
      .def("multiply", &ModelStack::multiply, py::arg("vector").noconvert(), py::arg("out").noconvert());
  py::class_<Device> device(module, "Device", py::module_local());
  bind_map<float>(module, device, "FeatureMapF32");
  bind_map<double>(module, device, "FeatureMapF64");
  device
      .def(py::init<int, std::uintptr_t, int64_t, const std::string&, bool>(), py::kw_only(), py::arg("device"),
           py::arg("stream"), py::arg("memory_budget"), py::arg("products"), py::arg("keep_memory"))
      .def("zero_gram", &Device::zero_gram, py::arg("p"))
      .def("keep_weight", &Device::keep_weight<float>, py::arg("weight").noconvert())
      .def("keep_weight", &Device::keep_weight<double>, py::arg("weight").noconvert())
      .def("owns", &Device::owns, py::arg("gram"))
      .def("release_memory", &Device::release_memory)
      .def("symmetrize", &Device::symmetrize, py::arg("gram").noconvert())
      .def("ridge_path", &Device::ridge_path, py::arg("gram"), py::arg("cross"), py::arg("lambdas"),
           py::arg("rounding"), py::arg("squares").noconvert(), py::arg("products").noconvert(),
           py::arg("positive_definite").noconvert(), py::arg("resolved").noconvert())
      .def("dense", &Device::dense)
      .def("features", &Device::features, py::arg("feature_map"), py::arg("x"), py::arg("tile_rows"))
      .def("has", &Device::has, py::arg("models"))
      .def("solve_spd", &Device::solve_spd, py::arg("a"), py::arg("rhs").noconvert())
      .def("preimage_solve", &Device::preimage_solve<float>, py::arg("weight").noconvert(), py::arg("rhs"),
           py::arg("x").noconvert(), py::arg("rcond_floor"))
      .def("preimage_solve", &Device::preimage_solve<double>, py::arg("weight"), py::arg("rhs"),
           py::arg("x").noconvert(), py::arg("rcond_floor"))
      .def("preimages_here", &Device::preimages_here<float>, py::arg("weight").noconvert(), py::arg("rhs"),
           py::arg("rcond_floor"))
      .def("preimages_here", &Device::preimages_here<double>, py::arg("weight"), py::arg("rhs"), py::arg("rcond_floor"))
      .def("hadamard_preimages_here", &Device::hadamard_preimages_here, py::arg("diagonals"), py::arg("scale"),
           py::arg("inputs"), py::arg("rhs"))
      .def("hadamard_solve", &Device::hadamard_solve, py::arg("diagonals"), py::arg("scale"), py::arg("rhs"),
           py::arg("x").noconvert());
  module.def("driver_facts", &driver_facts);
  module.attr("emulated") = emulated;
}

}  // namespace krrdistill::bindings
