// Errors of the core to the exceptions of krrdistill.errors.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

#include "krrdistill/errors.h"

namespace krrdistill::bindings {

// NOLINTNEXTLINE(performance-unnecessary-value-param): the signature is pybind11's
inline void translate(std::exception_ptr pointer) {
  const auto raise = [](const char* name, const char* message) {
    pybind11::set_error(pybind11::module_::import("krrdistill.errors").attr(name), message);
  };
  try {
    if (pointer) {
      std::rethrow_exception(pointer);
    }
  } catch (const NotPositiveDefinite& error) {
    raise("NotPositiveDefinite", error.what());
  } catch (const NonFinite& error) {
    raise("DataError", error.what());
  } catch (const DeviceError& error) {
    raise("DeviceError", error.what());
  } catch (const DeviceOutOfMemory& error) {
    raise("DeviceOutOfMemory", error.what());
  }
}

}  // namespace krrdistill::bindings
