// Arrays on a device as Python hands them over: the memory layout of DLPack's C interface before its version 1.0, which
// __dlpack__ gives and takes unless a later one is asked for (https://dmlc.github.io/dlpack/latest/c_api.html,
// https://data-apis.org/array-api/latest/API_specification/generated/array_api.array.__dlpack__.html).
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

namespace krrdistill::bindings::dlpack {

namespace py = pybind11;

constexpr int32_t cuda = 2, cuda_managed = 13;                     // kinds of devices
constexpr uint8_t unsigned_integer = 1, floating = 2, bfloat = 4;  // codes of types
constexpr const char* unused = "dltensor";                         // of a capsule whose memory nobody has taken over
using Place = std::pair<int32_t, int32_t>;                         // kind and index of a device
using Pair = std::array<int64_t, 2>;

struct Device {
  int32_t kind;
  int32_t index;
};

struct Type {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  Type type;
  int64_t* shape;
  int64_t* strides;  // in elements; null: row-major and contiguous
  uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* owner;
  void (*deleter)(ManagedTensor*);
};

// A matrix in memory of a CUDA device, for any framework's from_dlpack. Whoever made it has waited for it: it is ready
// on every stream.
class Matrix {
 public:
  Matrix(std::shared_ptr<void> data, Type type, Pair shape, Pair strides, int device)
      : data_(std::move(data)), type_(type), shape_(shape), strides_(strides), device_(device) {}

  [[nodiscard]] Place place() const { return {cuda, device_}; }

  // Whatever the stream, there is nothing that it has to wait for.
  [[nodiscard]] py::capsule share(const py::object& /*stream*/, const py::object& /*max_version*/,
                                  const std::optional<Place>& place, std::optional<bool> copy) const {
    if ((place && *place != this->place()) || copy.value_or(false)) {
      throw py::buffer_error("__dlpack__: the array is shared where it is, not copied");
    }
    auto shared = std::make_unique<Shared>();
    shared->data = data_;
    shared->shape = shape_;
    shared->strides = strides_;
    shared->managed = {.tensor = {.data = data_.get(),
                                  .device = {.kind = cuda, .index = device_},
                                  .ndim = 2,
                                  .type = type_,
                                  .shape = shared->shape.data(),
                                  .strides = shared->strides.data(),
                                  .byte_offset = 0},
                       .owner = shared.get(),
                       .deleter = [](ManagedTensor* tensor) { delete static_cast<Shared*>(tensor->owner); }};
    py::capsule capsule(&shared->managed, unused, &let_go);
    std::ignore = shared.release();  // the capsule has it now
    return capsule;
  }

 private:
  struct Shared {
    ManagedTensor managed{};
    Pair shape{};
    Pair strides{};
    std::shared_ptr<void> data;
  };

  static void let_go(PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, unused) != 0) {
      auto* tensor = static_cast<ManagedTensor*>(PyCapsule_GetPointer(capsule, unused));
      tensor->deleter(tensor);
    }
  }

  std::shared_ptr<void> data_;
  Type type_;
  Pair shape_;
  Pair strides_;  // in elements
  int device_;
};

// Memory that a framework shares, as long as this lives: the capsule lets go of it, because its name stays.
class Borrowed {
 public:
  // The framework makes `stream` wait for what it still does with the array. Throws TypeError for an array that is not
  // on this CUDA device.
  Borrowed(const py::object& x, int device, int64_t stream) {
    const auto [kind, index] = x.attr("__dlpack_device__")().cast<Place>();
    if (kind != cuda && kind != cuda_managed) {
      throw py::type_error("cuda: X must be in host memory or on CUDA device " + std::to_string(device) +
                           ", DLPack calls its device kind " + std::to_string(kind));
    }
    if (index != device) {
      throw py::type_error("cuda: X is on CUDA device " + std::to_string(index) + ", this backend works on device " +
                           std::to_string(device) + "; use CudaBackend(device=" + std::to_string(index) + ")");
    }
    capsule_ = x.attr("__dlpack__")(py::arg("stream") = stream);
    if (PyCapsule_IsValid(capsule_.ptr(), unused) == 0) {
      throw py::type_error("cuda: __dlpack__ of X must give a capsule called dltensor");
    }
  }

  [[nodiscard]] const Tensor& tensor() const {
    return static_cast<ManagedTensor*>(PyCapsule_GetPointer(capsule_.ptr(), unused))->tensor;
  }

 private:
  py::object capsule_;
};

}  // namespace krrdistill::bindings::dlpack
