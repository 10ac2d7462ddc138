// Scratch memory of one call. In a sanitizer build a guard follows it: LAPACK is not instrumented, so a workspace that
// is too short for it would go unseen. The guard is poisoned for our own code and compared when the call ends.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>

#ifdef KRRDISTILL_SANITIZED
#include <sanitizer/asan_interface.h>
#endif

namespace krrdistill::bindings {

// Uninitialised memory of n elements, aligned to a cache line.
template <typename T>
class Workspace {
 public:
  explicit Workspace(int64_t n)
      : bytes_(static_cast<size_t>(n > 0 ? n : 1) * sizeof(T)),
        data_(static_cast<unsigned char*>(::operator new(bytes_ + guard, alignment))) {
#ifdef KRRDISTILL_SANITIZED
    std::fill_n(data_ + bytes_, guard, pattern);
    ASAN_POISON_MEMORY_REGION(data_ + bytes_, guard);
#endif
  }
  ~Workspace() {
#ifdef KRRDISTILL_SANITIZED
    ASAN_UNPOISON_MEMORY_REGION(data_ + bytes_, guard);
    if (std::any_of(data_ + bytes_, data_ + bytes_ + guard, [](unsigned char byte) { return byte != pattern; })) {
      std::fputs("krrdistill: a workspace is too short, LAPACK wrote past its end\n", stderr);
      std::abort();
    }
#endif
    ::operator delete(data_, alignment);
  }
  Workspace(const Workspace&) = delete;
  Workspace(Workspace&&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  Workspace& operator=(Workspace&&) = delete;

  T* get() { return static_cast<T*>(static_cast<void*>(data_)); }

 private:
  static constexpr std::align_val_t alignment{64};
#ifdef KRRDISTILL_SANITIZED
  static constexpr size_t guard = 65536;
  static constexpr unsigned char pattern = 0xA5;
#else
  static constexpr size_t guard = 0;
#endif
  size_t bytes_;
  unsigned char* data_;
};

}  // namespace krrdistill::bindings
