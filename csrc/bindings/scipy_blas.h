// Fills the BLAS tables of the core with the functions that SciPy exports.
#pragma once

namespace krrdistill::bindings {

// Throws ImportError when SciPy lacks a function or its integers are not 32 bits wide.
void load_scipy_blas();

}  // namespace krrdistill::bindings
