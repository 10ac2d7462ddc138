// Copies into shared memory that a thread does not wait for: they arrive as late as they may, or at once ("eager").
#pragma once

#include <cstddef>

#include "emulation.h"

// 4, 8 or 16 bytes, of which the last `zfill` become zero.
inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes, size_t zfill = 0) {
  emulation::copy_later(to, from, bytes, zfill);
}
inline void __pipeline_commit() { emulation::commit_copies(); }
// Waits for all groups of copies but the last `prior` that were committed.
inline void __pipeline_wait_prior(size_t prior) { emulation::wait_for_copies(prior); }
