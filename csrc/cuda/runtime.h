// What every operation on the device needs: checked calls, launches, the context, and the memory of one operation.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include <array>
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/operations.h"

namespace krrdistill::cuda {

// Throw DeviceOutOfMemory or DeviceError with the call and the reason.
void check(cudaError_t status, const char* call);
void check(cublasStatus_t status, const char* call);
void check(cusolverStatus_t status, const char* call);

// NOLINTNEXTLINE(cppcoreguidelines-macro-usage): the text of the call goes into the message
#define KRRDISTILL_CHECK(call) ::krrdistill::cuda::check((call), #call)

// Whether this process was forked from one that used CUDA in this module: nothing of CUDA may be called, or freed.
bool forked();

// Sizes of cuBLAS, cuSOLVER and grids are 32 bits wide. Throws std::length_error.
int narrow(int64_t value);

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Elements between rows of a device matrix with `width` columns: every row starts on a 16-byte boundary, and reads
// and writes of whole 16-byte vectors stay inside of it.
inline int64_t pitch(int64_t width) { return ceil_div(width, 16) * 16; }

// A grid of at most 65535 rows (kernels stride over the rest), never empty.
inline dim3 grid_of(int64_t x, int64_t y = 1) {
  const int64_t rows = y > 65535 ? 65535 : y;
  return dim3(static_cast<unsigned>(narrow(x > 0 ? x : 1)), static_cast<unsigned>(rows > 0 ? rows : 1));
}

// Memory that operations gave back, for those that follow: cudaMalloc and cudaFree wait for the device, and
// cudaMallocHost touches every page, which takes longer than a copy through it. Threads may share it: memory that
// outlived its operation is given back by whoever lets go of it, while others work.
struct Block {
  void* memory = nullptr;
  int64_t bytes = 0;
};

class Pool {
 public:
  using Blocks = std::multimap<int64_t, void*>;  // by their bytes

  // The smallest free block of at least `bytes` and at most `most`; empty where there is none.
  Block take(int64_t bytes, int64_t most);
  void give(const Block& block);
  Blocks take_all() noexcept;
  [[nodiscard]] int64_t bytes() const;

 private:
  mutable std::mutex mutex_;
  Blocks blocks_;
  int64_t bytes_ = 0;
};

// An array (rows, width) of the host: others may begin at the same address.
struct KeptKey {
  const void* data;
  int64_t rows;
  int64_t width;
  int64_t element;  // bytes

  [[nodiscard]] int64_t bytes() const { return rows * pitch(width) * element; }
  friend auto operator<=>(const KeptKey&, const KeptKey&) = default;
};

class Context : public std::enable_shared_from_this<Context> {
 public:
  explicit Context(const Options& options);
  ~Context();
  Context(const Context&) = delete;
  Context(Context&&) = delete;
  Context& operator=(const Context&) = delete;
  Context& operator=(Context&&) = delete;

  Options options;
  cudaStream_t compute = nullptr;  // kernels and products
  cudaStream_t copy = nullptr;     // tiles on their way to the device, or out of the caller's memory there
  cublasHandle_t blas = nullptr;
  cusolverDnHandle_t solver = nullptr;
  int multiprocessors = 0;  // of the device
  std::mutex mutex;
  Pool device_pool;
  Pool pinned_pool;
  std::map<KeptKey, std::weak_ptr<const void>> kept;  // arrays of the host, and their copies that keep_weight made
  int64_t device_memory = 0;                          // bytes of the device, when somebody has asked for what is free
  // What the last operation that chose its rows might have needed, which is an upper bound, and what it took.
  struct {
    int64_t needed = 0;
    int64_t taken = 0;
  } fitted;

  // Takes memory back that an operation left behind: for the next one, or for the device.
  void take_back(const Block& block) noexcept;

  // Gives the pools' memory back to the device and the host.
  void trim() noexcept;
  void trim_device() noexcept;

 private:
  void destroy() noexcept;
};

// One operation: makes the device current, keeps other operations out, and owns the memory and events that it asks
// for. The end waits for both streams before it frees them, also when an exception ends it.
class Scope {
 public:
  explicit Scope(Context& context);
  ~Scope();
  Scope(const Scope&) = delete;
  Scope(Scope&&) = delete;
  Scope& operator=(const Scope&) = delete;
  Scope& operator=(Scope&&) = delete;

  // Uninitialised memory; n = 0 is one element.
  template <typename T>
  T* device(int64_t n) {
    return static_cast<T*>(device_bytes((n > 0 ? n : 1) * static_cast<int64_t>(sizeof(T))));
  }
  template <typename T>
  T* pinned(int64_t n) {
    return static_cast<T*>(pinned_bytes((n > 0 ? n : 1) * static_cast<int64_t>(sizeof(T))));
  }
  cudaEvent_t event();

  // A copy of n elements on the device; returns when the source may change.
  template <typename T>
  T* upload(const T* host, int64_t n) {
    return upload_rows(host, 1, n, n);
  }
  // Rows of `width` elements, `ld` elements apart on the device, through pinned memory that several threads fill.
  template <typename T>
  T* upload_rows(const T* host, int64_t rows, int64_t width, int64_t ld) {
    T* memory = device<T>(rows * ld);
    upload_rows_to(memory, host, rows, width, ld);
    return memory;
  }
  template <typename T>
  void upload_rows_to(T* memory, const T* host, int64_t rows, int64_t width, int64_t ld) {
    send(memory, ld * static_cast<int64_t>(sizeof(T)), host, rows, width * static_cast<int64_t>(sizeof(T)));
  }
  // Waits for all work before it, and for the copy.
  template <typename T>
  void download(T* host, const T* device, int64_t n) {
    receive(host, device, n * static_cast<int64_t>(sizeof(T)));
  }

  // Memory of device() that outlives the operation. Streams of others may still read it when they let go of it:
  // cudaFree waits for them.
  template <typename T>
  std::shared_ptr<T> keep(T* memory) {
    return std::static_pointer_cast<T>(keep_bytes(memory));
  }
  // The same of memory that only operations of this context see, to which it goes back.
  template <typename T>
  std::shared_ptr<T> keep_here(T* memory) {
    return std::static_pointer_cast<T>(keep_bytes_here(memory));
  }

  // n elements that are `stride` elements apart on the device, such as a diagonal.
  void download_strided(double* host, const double* device, int64_t n, int64_t stride);

  // Bytes of the device, free or not.
  int64_t device_memory();

  // The copy of an array that keep_weight made, which then lives until the operation ends; null where there is none.
  const void* kept(const KeptKey& key);

  // What device() gave after mark() goes back to the budget; the streams must be done with it.
  struct Mark {
    size_t blocks;
  };
  [[nodiscard]] Mark mark() const { return {.blocks = device_.size()}; }
  void release_to(const Mark& mark);

  // The most rows, at most `wanted`, that fit beside `fixed` bytes. Throws DeviceOutOfMemory when none does.
  [[nodiscard]] int64_t fit_rows(const char* operation, int64_t fixed, int64_t per_row, int64_t wanted);

  Context& context;

 private:
  void* device_bytes(int64_t bytes);
  void* pinned_bytes(int64_t bytes);
  int64_t free_memory();
  Block let_go(void* memory);
  std::shared_ptr<void> keep_bytes(void* memory);
  std::shared_ptr<void> keep_bytes_here(void* memory);
  int64_t budget();
  // Bytes of the budget that are left.
  int64_t available() { return budget() - used_; }
  // Whether so many bytes more are there for certain, without asking the device.
  [[nodiscard]] bool surely_fits(int64_t bytes) const { return used_ + bytes <= waiting_; }
  void send(void* to, int64_t to_pitch, const void* from, int64_t rows, int64_t row_bytes);
  void receive(void* to, const void* from, int64_t bytes);
  void make_ring(int64_t bytes);

  std::lock_guard<std::mutex> lock_;
  int previous_device_ = 0;
  int64_t budget_ = 0;   // 0: not known yet
  int64_t waiting_ = 0;  // bytes of the pool when the operation began: no more than a budget that was given
  int64_t used_ = 0;
  int64_t most_ = 0;    // of used_ so far
  int64_t needed_ = 0;  // by the rows that fit_rows gave
  struct Held {
    Block block;
    int64_t charged;  // what was asked for, and is used of the budget
  };
  std::vector<Held> device_;
  std::vector<Block> pinned_;
  std::vector<std::shared_ptr<const void>> held_;  // of kept(): another thread may let go of them
  std::array<Block, 2> ring_{};                    // of send and receive
  std::array<cudaEvent_t, 2> ring_free_{};
  std::vector<cudaEvent_t> events_;
};

// n numbers become 0.
template <typename T>
void clear(cudaStream_t stream, T* numbers, int64_t n) {
  KRRDISTILL_CHECK(cudaMemsetAsync(numbers, 0, static_cast<size_t>(n) * sizeof(T), stream));
}

// The one way to start a kernel. More than 48 KiB of shared memory must be asked for.
template <typename... Parameters, typename... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, int threads, int64_t shared_bytes,
            cudaStream_t stream, Arguments... arguments) {
  if (shared_bytes > (48 << 10)) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, narrow(shared_bytes)), name);
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
  config.stream = stream;
  check(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), name);
}

}  // namespace krrdistill::cuda
