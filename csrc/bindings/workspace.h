// Scratch memory of one call. In a sanitizer build a guard follows it: LAPACK is not instrumented, so a workspace that
// is too short for it would go unseen. The guard is poisoned for our own code and compared when the call ends.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#ifdef KRRDISTILL_SANITIZED
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace krrdistill::bindings {

// Uninitialised memory of n elements. Large ones are aligned to huge pages and ask for them: a tile is touched anew in
// every call, and a fault per 4 KiB costs more than its epilogue.
template <typename T>
class Workspace {
 public:
  explicit Workspace(int64_t n)
      : bytes_(bytes_of(n)),
        alignment_(bytes_ < huge_page ? std::align_val_t{64} : std::align_val_t{huge_page}),
        memory_(::operator new(bytes_ + guard_bytes, alignment_)) {
#ifdef __linux__
    if (bytes_ >= huge_page) {
      ::madvise(memory_, bytes_, MADV_HUGEPAGE);  // advice: what the kernel answers changes nothing
    }
#endif
#ifdef KRRDISTILL_SANITIZED
    std::fill_n(guard(), guard_bytes, pattern);
    ASAN_POISON_MEMORY_REGION(guard(), guard_bytes);
#endif
  }
  ~Workspace() {
#ifdef KRRDISTILL_SANITIZED
    ASAN_UNPOISON_MEMORY_REGION(guard(), guard_bytes);
    if (std::any_of(guard(), guard() + guard_bytes, [](unsigned char byte) { return byte != pattern; })) {
      __sanitizer_report_error_summary("krrdistill: a workspace is too short, LAPACK wrote past its end");
      std::abort();
    }
#endif
    ::operator delete(memory_, alignment_);
  }
  Workspace(const Workspace&) = delete;
  Workspace(Workspace&&) = delete;
  Workspace& operator=(const Workspace&) = delete;
  Workspace& operator=(Workspace&&) = delete;

  T* get() { return static_cast<T*>(memory_); }

 private:
  static size_t bytes_of(int64_t n) {
    if (n > std::numeric_limits<int64_t>::max() / static_cast<int64_t>(sizeof(T)) - static_cast<int64_t>(guard_bytes)) {
      throw std::bad_alloc();
    }
    return static_cast<size_t>(n > 0 ? n : 1) * sizeof(T);
  }

  static constexpr size_t huge_page = size_t{1} << 21;
#ifdef KRRDISTILL_SANITIZED
  static constexpr size_t guard_bytes = 65536;  // more than one block of LAPACK
  static constexpr unsigned char pattern = 0xA5;
  unsigned char* guard() { return static_cast<unsigned char*>(memory_) + bytes_; }
#else
  static constexpr size_t guard_bytes = 0;
#endif
  size_t bytes_;
  std::align_val_t alignment_;
  void* memory_;
};

}  // namespace krrdistill::bindings
