// OpenMP's thread numbers, or those of a single thread where the compiler has no OpenMP.
#pragma once

#include <cstdint>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace krrdistill {

inline int64_t max_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

// Threads of the loops that the calling thread starts from now on. Returns how many there were.
inline int64_t set_threads(int64_t count) {
  const int64_t before = max_threads();
#ifdef _OPENMP
  omp_set_num_threads(static_cast<int>(count));
#else
  static_cast<void>(count);
#endif
  return before;
}

inline int64_t thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace krrdistill
