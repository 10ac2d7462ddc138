// The Python module krrdistill._cuda_emulated: the operations of _cuda on the emulated device, and its settings.
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>

#include "bindings/cuda.h"
#include "bindings/scipy_blas.h"
#include "cuda_runtime.h"

namespace py = pybind11;

PYBIND11_MODULE(_cuda_emulated, module) {
  module.doc() = "The CUDA operations of krrdistill on an emulated device, for tests.";
  krrdistill::bindings::load_scipy_blas();
  krrdistill::bindings::bind_cuda(module, true);
  const auto set = [](const std::string& order, bool eager, int64_t fail_at, int factor_info, int driver_version,
                      int devices, int compute_major, int64_t memory) {
    using emulation::Order;
    emulation::settings() = {.order = order == "reverse"    ? Order::reverse
                                      : order == "shuffled" ? Order::shuffled
                                                            : Order::forward,
                             .eager = eager,
                             .fail_at = fail_at,
                             .calls = 0,
                             .failed = "",
                             .factor_info = factor_info,
                             .driver_version = driver_version,
                             .devices = devices,
                             .compute_major = compute_major,
                             .memory = memory};
  };
  module.def("emulate", set, py::kw_only(), py::arg("order") = "forward", py::arg("eager") = false,
             py::arg("fail_at") = 0, py::arg("factor_info") = 0, py::arg("driver_version") = 13000,
             py::arg("devices") = 1, py::arg("compute_major") = 9, py::arg("memory") = int64_t{1} << 32);
  module.def("make_stream", [] {
    cudaStream_t stream = nullptr;
    static_cast<void>(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return reinterpret_cast<std::uintptr_t>(stream);
  });
  module.def("destroy_stream", [](std::uintptr_t stream) {
    static_cast<void>(cudaStreamDestroy(reinterpret_cast<cudaStream_t>(stream)));
  });
  module.def("calls", [] { return emulation::settings().calls; });
  module.def("failed", [] { return emulation::settings().failed; });
  module.def("current_device", [] { return emulation::current_device(); });
  module.def("live_objects", &emulation::live_objects);
  module.def("peak_bytes", &emulation::peak_bytes);
}
