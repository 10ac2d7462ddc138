// The Python module krrdistill._cuda. Importing it does nothing on the GPU.
#include <pybind11/pybind11.h>

#include "bindings/cuda.h"

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "Compiled CUDA operations of krrdistill; use them through krrdistill.backends.cuda.";
  krrdistill::bindings::bind_cuda(module, false);
}
