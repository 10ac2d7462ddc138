// scipy.linalg.cython_blas and cython_lapack keep their functions in `__pyx_capi__`: a capsule per function,
// whose name is the C signature. The signature is how the integer width is checked.
#include "bindings/scipy_blas.h"

#include <pybind11/pybind11.h>

#include <string>

#include "common/blas_routines.h"
#include "krrdistill/blas.h"

namespace py = pybind11;

namespace krrdistill::bindings {
namespace {

// The address of one exported function.
void* find(const py::dict& exported, const std::string& name) {
  if (!exported.contains(name.c_str())) {
    throw py::import_error("krrdistill: this SciPy does not export " + name + "; install scipy>=1.13");
  }
  const auto capsule = py::reinterpret_borrow<py::capsule>(exported[name.c_str()]);
  const std::string signature = capsule.name() == nullptr ? "" : capsule.name();
  // "void (char *, int *, ...": plain C ints. An ILP64 build writes a 64-bit type in their place.
  if (signature.find("int *") == std::string::npos || signature.find("64_t *") != std::string::npos ||
      signature.find("long *") != std::string::npos) {
    throw py::import_error("krrdistill: " + name + " of this SciPy does not take 32-bit integers (" + signature + ")");
  }
  return capsule.get_pointer();
}

template <typename Function>
void load(const py::dict& exported, const std::string& name, Function& target) {
  target = reinterpret_cast<Function>(find(exported, name));
}

template <typename T>
void load_table(const py::dict& blas_functions, const py::dict& lapack_functions, const std::string& prefix) {
  BlasTable<T>& table = blas<T>();
#define LOAD_BLAS(name) load(blas_functions, prefix + #name, table.name);
#define LOAD_LAPACK(name) load(lapack_functions, prefix + #name, table.name);
  KRRDISTILL_BLAS_ROUTINES(LOAD_BLAS)
  KRRDISTILL_LAPACK_ROUTINES(LOAD_LAPACK)
}

}  // namespace

void load_scipy_blas() {
  const auto capi = [](const char* module) {
    return py::module_::import(module).attr("__pyx_capi__").cast<py::dict>();
  };
  const py::dict blas_functions = capi("scipy.linalg.cython_blas");
  const py::dict lapack_functions = capi("scipy.linalg.cython_lapack");
  load_table<float>(blas_functions, lapack_functions, "s");
  load_table<double>(blas_functions, lapack_functions, "d");
}

}  // namespace krrdistill::bindings
