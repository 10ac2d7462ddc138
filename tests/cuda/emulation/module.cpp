// The Python module krrdistill._cuda_emulated: the operations of _cuda on the emulated device, and its settings.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bindings/cuda.h"
#include "bindings/dlpack.h"
#include "bindings/scipy_blas.h"
#include "cuda/runtime.h"

namespace py = pybind11;

namespace {

namespace dlpack = krrdistill::bindings::dlpack;

cudaStream_t stream_of(std::uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

// What a framework does on its own device; none of it counts as a call.
class OnDevice {
 public:
  explicit OnDevice(int device) : previous_(std::exchange(emulation::current_device(), device)) {}
  ~OnDevice() { emulation::current_device() = previous_; }
  OnDevice(const OnDevice&) = delete;
  OnDevice(OnDevice&&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  OnDevice& operator=(OnDevice&&) = delete;

 private:
  int previous_;
};

// A matrix on the device with the layout and alignment of this one, whose numbers `stream` brings there later.
// `bfloat`: the numbers of x are bfloat16, which NumPy does not have, as uint16.
dlpack::Matrix upload(const py::array& x, std::uintptr_t stream, int device, bool bfloat) {
  const auto size = static_cast<int64_t>(x.itemsize());
  const dlpack::Pair shape{x.shape(0), x.shape(1)}, strides{x.strides(0), x.strides(1)};
  int64_t low = 0, high = size;
  for (size_t i = 0; i < 2; ++i) {
    const int64_t span = std::max<int64_t>(shape[i] - 1, 0) * strides[i];
    (span < 0 ? low : high) += span;
  }
  const auto* start = static_cast<const std::byte*>(x.data()) + low;
  const auto offset = static_cast<int64_t>(reinterpret_cast<std::uintptr_t>(start) % 16);
  const OnDevice current(device);
  void* memory = nullptr;
  KRRDISTILL_CHECK(cudaMalloc(&memory, static_cast<size_t>(offset + high - low)));
  const std::shared_ptr<void> block(memory, [](void* owned) { static_cast<void>(cudaFree(owned)); });
  auto* to = static_cast<std::byte*>(memory) + offset;
  emulation::enqueue(stream_of(stream), [block, to, bytes = std::vector<std::byte>(start, start + (high - low))] {
    std::copy(bytes.begin(), bytes.end(), to);
  });
  const char kind = x.dtype().kind();
  const dlpack::Type type{.code = bfloat        ? dlpack::bfloat
                                  : kind == 'u' ? dlpack::unsigned_integer
                                                : dlpack::floating,
                          .bits = static_cast<uint8_t>(8 * size),
                          .lanes = 1};
  return {std::shared_ptr<void>(block, to - low), type, shape, {strides[0] / size, strides[1] / size}, device};
}

// What a contiguous matrix on the device holds now: nothing is waited for.
template <typename T>
py::array_t<T> download(const dlpack::Tensor& x) {
  py::array_t<T> result({x.shape[0], x.shape[1]});
  const auto bytes = static_cast<size_t>(result.nbytes());
  cudaStream_t stream = nullptr;
  KRRDISTILL_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const cudaError_t copied = cudaMemcpyAsync(result.mutable_data(), x.data, bytes, cudaMemcpyDeviceToHost, stream);
  static_cast<void>(cudaStreamDestroy(stream));
  krrdistill::cuda::check(copied, "cudaMemcpyAsync");
  return result;
}

py::array read_matrix(const py::object& x) {
  const auto [kind, device] = x.attr("__dlpack_device__")().cast<dlpack::Place>();
  const dlpack::Borrowed owner(x, device, -1);
  const dlpack::Tensor& tensor = owner.tensor();
  if (tensor.type.code != dlpack::floating) {
    return download<uint8_t>(tensor);
  }
  return tensor.type.bits == 32 ? py::array(download<float>(tensor)) : py::array(download<double>(tensor));
}

}  // namespace

PYBIND11_MODULE(_cuda_emulated, module) {
  module.doc() = "The CUDA operations of krrdistill on an emulated device, for tests.";
  krrdistill::bindings::load_scipy_blas();
  krrdistill::bindings::bind_cuda(module, true);
  const auto set = [](const std::string& order, bool eager, int64_t fail_at, int factor_info, int factor_at, int driver_version,
                      int devices, int compute_major, int64_t memory) {
    for (int device = 0; device < emulation::settings().devices; ++device) {  // what a test left in default streams
      const OnDevice current(device);
      emulation::drain(stream_of(1));
      emulation::drain(stream_of(2));
    }
    using emulation::Order;
    emulation::settings() = {.order = order == "reverse"    ? Order::reverse
                                      : order == "shuffled" ? Order::shuffled
                                                            : Order::forward,
                             .eager = eager,
                             .fail_at = fail_at,
                             .calls = 0,
                             .asked = 0,
                             .failed = "",
                             .factor_info = factor_info,
                             .factor_at = factor_at,
                             .driver_version = driver_version,
                             .devices = devices,
                             .compute_major = compute_major,
                             .memory = memory};
  };
  module.def("emulate", set, py::kw_only(), py::arg("order") = "forward", py::arg("eager") = false,
             py::arg("fail_at") = 0, py::arg("factor_info") = 0, py::arg("factor_at") = 1, py::arg("driver_version") = 13000,
             py::arg("devices") = 1, py::arg("compute_major") = 9, py::arg("memory") = int64_t{1} << 32);
  module.def("make_stream", [] {
    cudaStream_t stream = nullptr;
    static_cast<void>(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return reinterpret_cast<std::uintptr_t>(stream);
  });
  module.def("destroy_stream", [](std::uintptr_t stream) { static_cast<void>(cudaStreamDestroy(stream_of(stream))); });
  module.def("wait_for", [](std::uintptr_t stream, std::uintptr_t other) {
    emulation::wait_for(stream_of(stream), stream_of(other));
  });
  module.def("upload", &upload, py::arg("x"), py::kw_only(), py::arg("stream"), py::arg("device") = 0,
             py::arg("bfloat") = false);
  module.def("read", &read_matrix);
  module.def("calls", [] { return emulation::settings().calls; });
  module.def("asked", [] { return emulation::settings().asked; });
  module.def("failed", [] { return emulation::settings().failed; });
  module.def("current_device", [] { return emulation::current_device(); });
  module.def("live_objects", &emulation::live_objects);
  module.def("pending", &emulation::pending);
  module.def("peak_bytes", &emulation::peak_bytes);
  module.def("bus_bytes", [] {
    const emulation::Bus bus = emulation::bus_bytes();
    return py::make_tuple(bus.to_device, bus.to_host);
  });
}
