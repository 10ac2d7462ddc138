// Ctrl-C during a long operation: Python's signal handlers run between two of its steps.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>

#include "krrdistill/interrupt.h"

namespace krrdistill::bindings {

inline unsigned long main_thread = 0;  // as Python numbers threads

// At most ten times a second, and in Python's main thread only: the others run no signal handlers, and would wait for
// the GIL. Called without it.
inline void run_signal_handlers() {
  using Clock = std::chrono::steady_clock;
  static thread_local Clock::time_point last = Clock::now();
  const Clock::time_point now = Clock::now();
  if (now - last < std::chrono::milliseconds(100) || PyThread_get_thread_ident() != main_thread) {
    return;
  }
  last = now;
  const pybind11::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) {
    throw pybind11::error_already_set();
  }
}

// For all operations of this module.
inline void stop_at_signals() {
  main_thread = pybind11::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
  set_interrupt_check(&run_signal_handlers);
}

}  // namespace krrdistill::bindings
