// The operations on the GPU as a Python class, for the module _cuda and for its emulation in the tests.
#pragma once

#include <pybind11/pybind11.h>

namespace krrdistill::bindings {

void bind_cuda(pybind11::module_& module, bool emulated);

}  // namespace krrdistill::bindings
