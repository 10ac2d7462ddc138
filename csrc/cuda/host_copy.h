// Copies between pageable and pinned memory, by several threads: one reaches an eighth of the bus.
#pragma once

#include <cstdint>

#include "krrdistill/statistics.h"

namespace krrdistill::cuda {

void copy_on_host(void* to, const void* from, int64_t bytes);

// Rows first ... first + count - 1 of `input`, `width` bytes each, to rows `stride` bytes apart.
void gather_on_host(const Input& input, int64_t first, int64_t count, int64_t element, int64_t width, void* to,
                    int64_t stride);

}  // namespace krrdistill::cuda
