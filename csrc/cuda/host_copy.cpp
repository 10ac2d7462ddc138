#include "cuda/host_copy.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "common/threads.h"

namespace krrdistill::cuda {
namespace {

constexpr int64_t chunk = 524288;    // bytes for a thread at least
constexpr int64_t most_threads = 8;  // more do not copy faster

[[maybe_unused]] int threads_for(int64_t bytes) {
  return static_cast<int>(std::clamp<int64_t>(bytes / chunk, 1, std::min(max_threads(), most_threads)));
}

}  // namespace

void copy_on_host(void* to, const void* from, int64_t bytes) {
#pragma omp parallel for schedule(static) num_threads(threads_for(bytes))
  for (int64_t start = 0; start < bytes; start += chunk) {
    std::memcpy(static_cast<std::byte*>(to) + start, static_cast<const std::byte*>(from) + start,
                static_cast<size_t>(std::min(chunk, bytes - start)));
  }
}

void gather_on_host(const Input& input, int64_t first, int64_t count, int64_t element, int64_t width, void* to,
                    int64_t stride) {
#pragma omp parallel for schedule(static) num_threads(threads_for(count* width))
  for (int64_t i = 0; i < count; ++i) {
    std::memcpy(static_cast<std::byte*>(to) + i * stride,
                static_cast<const std::byte*>(input.data) + input.row_of(first + i) * input.row_stride * element,
                static_cast<size_t>(width));
  }
}

}  // namespace krrdistill::cuda
