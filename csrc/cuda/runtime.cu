#include "cuda/runtime.h"

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/host_copy.h"
#include "krrdistill/errors.h"

namespace krrdistill::cuda {
namespace {

// "cudaMalloc(&memory, bytes)" -> "cudaMalloc"
std::string name_of(const char* call) {
  const std::string text = call;
  return text.substr(0, text.find('('));
}

[[noreturn]] void fail(const char* call, const std::string& reason) {
  throw DeviceError("CUDA: " + name_of(call) + " failed: " + reason);
}

constexpr int64_t ring_bytes = int64_t{8} << 20;    // of each of two pinned buffers
constexpr int64_t direct_bytes = int64_t{1} << 18;  // up to it one pageable copy is as fast

// A block of the pool may be twice as large as what is asked for, but not by more than this part of the device's
// memory: nobody counts what is left over of it, and the budget leaves a tenth.
constexpr int64_t spared_part = 128;

constexpr const char* spawn = "start processes with multiprocessing.get_context(\"spawn\")";

std::string reason_of(cudaError_t status) {
  const std::string reason = std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")";
  // What CUDA says in a process that another library, having used CUDA, forked.
  return status == cudaErrorInitializationError ? reason + "; if this process was forked, " + spawn : reason;
}

std::string mebibytes(int64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

}  // namespace

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) {
    return;
  }
  static_cast<void>(cudaGetLastError());  // the runtime would report it again
  const std::string reason = reason_of(status);
  if (status == cudaErrorMemoryAllocation) {
    throw DeviceOutOfMemory("CUDA: " + name_of(call) + " failed: " + reason + "; lower memory_budget or use less data");
  }
  fail(call, reason);
}

void check(cublasStatus_t status, const char* call) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    const std::string remedy =
        status == CUBLAS_STATUS_NOT_SUPPORTED ? " (not supported); products='fp32' needs no products of bytes" : "";
    fail(call, "cuBLAS status " + std::to_string(static_cast<int>(status)) + remedy);
  }
}

void check(cusolverStatus_t status, const char* call) {
  if (status != CUSOLVER_STATUS_SUCCESS) {
    fail(call, "cuSOLVER status " + std::to_string(static_cast<int>(status)));
  }
}

int narrow(int64_t value) {
  if (value < 0 || value > std::numeric_limits<int>::max()) {
    throw std::length_error("CUDA: size " + std::to_string(value) + " does not fit 32 bits");
  }
  return static_cast<int>(value);
}

bool forked() {
  static const pid_t first = getpid();  // the process that used CUDA first
  return getpid() != first;
}

void check_process() {
  if (forked()) {
    throw DeviceError(std::string("CUDA: this process was forked from one that had used CUDA, which does not survive "
                                  "a fork; ") +
                      spawn + ", or fork them before the first CudaBackend is made");
  }
}

CurrentDevice::CurrentDevice(int device) {
  check_process();
  KRRDISTILL_CHECK(cudaGetDevice(&previous_));
  KRRDISTILL_CHECK(cudaSetDevice(device));
}

CurrentDevice::~CurrentDevice() { static_cast<void>(cudaSetDevice(previous_)); }

namespace {

// What frees memory has to be current on its device; nothing is freed in a forked process.
void free_on(int device, void* memory) noexcept {
  if (forked()) {
    return;
  }
  int previous = device;
  static_cast<void>(cudaGetDevice(&previous));
  static_cast<void>(cudaSetDevice(device));
  static_cast<void>(cudaFree(memory));
  static_cast<void>(cudaSetDevice(previous));
}

}  // namespace

Context::Context(const Options& given) : options(given) {
  check_process();
  int previous = 0;
  KRRDISTILL_CHECK(cudaGetDevice(&previous));
  KRRDISTILL_CHECK(cudaSetDevice(options.device));
  try {
    compute = static_cast<cudaStream_t>(options.stream);
    if (compute == nullptr) {
      KRRDISTILL_CHECK(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
    }
    KRRDISTILL_CHECK(cudaStreamCreateWithFlags(&copy, cudaStreamNonBlocking));
    KRRDISTILL_CHECK(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, options.device));
    KRRDISTILL_CHECK(cublasCreate(&blas));
    KRRDISTILL_CHECK(cublasSetStream(blas, compute));
    KRRDISTILL_CHECK(
        cublasSetMathMode(blas, options.products == Products::tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH));
    KRRDISTILL_CHECK(cusolverDnCreate(&solver));
    KRRDISTILL_CHECK(cusolverDnSetStream(solver, compute));
    KRRDISTILL_CHECK(cudaSetDevice(previous));
  } catch (...) {
    destroy();
    static_cast<void>(cudaSetDevice(previous));
    throw;
  }
}

Context::~Context() {
  if (forked()) {
    return;
  }
  int previous = options.device;
  static_cast<void>(cudaGetDevice(&previous));
  static_cast<void>(cudaSetDevice(options.device));
  destroy();
  static_cast<void>(cudaSetDevice(previous));
}

// Whoever lets go of memory does not wait for the operation that is running. With a budget of its own, a context keeps
// no more than its operations take.
void Context::take_back(const Block& block) noexcept {
  if (forked()) {
    return;
  }
  if (options.keep_memory && options.memory_budget == 0) {
    device_pool.give(block);
  } else {
    free_on(options.device, block.memory);
  }
}

Block Pool::take(int64_t bytes, int64_t most) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = blocks_.lower_bound(bytes);
  if (found == blocks_.end() || found->first > most) {
    return {};
  }
  const Block block{.memory = found->second, .bytes = found->first};
  blocks_.erase(found);
  bytes_ -= block.bytes;
  return block;
}

void Pool::give(const Block& block) {
  const std::lock_guard<std::mutex> lock(mutex_);
  blocks_.emplace(block.bytes, block.memory);
  bytes_ += block.bytes;
}

Pool::Blocks Pool::take_all() noexcept {
  const std::lock_guard<std::mutex> lock(mutex_);
  bytes_ = 0;
  return std::exchange(blocks_, {});
}

int64_t Pool::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return bytes_;
}

void Context::trim_device() noexcept {
  for (const auto& [bytes, memory] : device_pool.take_all()) {
    static_cast<void>(cudaFree(memory));
  }
}

void Context::trim() noexcept {
  trim_device();
  for (const auto& [bytes, memory] : pinned_pool.take_all()) {
    static_cast<void>(cudaFreeHost(memory));
  }
}

void Context::destroy() noexcept {
  trim();
  if (solver != nullptr) {
    static_cast<void>(cusolverDnDestroy(solver));
  }
  if (blas != nullptr) {
    static_cast<void>(cublasDestroy(blas));
  }
  if (copy != nullptr) {
    static_cast<void>(cudaStreamDestroy(copy));
  }
  if (compute != nullptr && options.stream == nullptr) {
    static_cast<void>(cudaStreamDestroy(compute));
  }
}

std::shared_ptr<Context> make_context(const Options& options) { return std::make_shared<Context>(options); }

int device_of(const Context& context) { return context.options.device; }

void release_memory(Context& context) {
  const Scope scope(context);
  context.trim();
}

void* reading_stream(const Context& context) { return context.copy; }

DriverFacts driver_facts() {
  check_process();
  DriverFacts facts;
  KRRDISTILL_CHECK(cudaRuntimeGetVersion(&facts.runtime));
  KRRDISTILL_CHECK(cudaDriverGetVersion(&facts.driver));
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    facts.error = reason_of(status);
    return facts;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties{};
    KRRDISTILL_CHECK(cudaGetDeviceProperties(&properties, i));
    facts.devices.push_back({.name = properties.name,
                             .major = properties.major,
                             .minor = properties.minor,
                             .memory = static_cast<int64_t>(properties.totalGlobalMem)});
  }
  return facts;
}

Scope::Scope(Context& of) : context((check_process(), of)), lock_(of.mutex) {
  KRRDISTILL_CHECK(cudaGetDevice(&previous_device_));
  KRRDISTILL_CHECK(cudaSetDevice(context.options.device));
  budget_ = context.options.memory_budget;
  waiting_ = context.device_pool.bytes();
}

Scope::~Scope() {
  // Errors were reported where they happened; what remains is to let go of everything.
  static_cast<void>(cudaStreamSynchronize(context.copy));
  static_cast<void>(cudaStreamSynchronize(context.compute));
  for (cudaEvent_t event : events_) {
    static_cast<void>(cudaEventDestroy(event));
  }
  if (needed_ > 0 && std::uncaught_exceptions() == 0) {
    context.fitted = {.needed = needed_, .taken = most_};
  }
  for (const Held& held : device_) {
    context.device_pool.give(held.block);
  }
  for (const Block& block : pinned_) {
    context.pinned_pool.give(block);
  }
  if (!context.options.keep_memory) {
    context.trim();
  }
  static_cast<void>(cudaSetDevice(previous_device_));
}

int64_t Scope::free_memory() {
  size_t free = 0, total = 0;
  KRRDISTILL_CHECK(cudaMemGetInfo(&free, &total));
  context.device_memory = static_cast<int64_t>(total);
  return static_cast<int64_t>(free);
}

int64_t Scope::device_memory() {
  if (context.device_memory == 0) {
    free_memory();
  }
  return context.device_memory;
}

// What is free on the device is asked for when an operation needs more than waits for it: that can take a millisecond.
int64_t Scope::budget() {
  if (budget_ == 0) {
    int64_t bytes = free_memory() + context.device_pool.bytes();
    for (const Held& held : device_) {
      bytes += held.block.bytes;
    }
    budget_ = bytes / 10 * 9;
  }
  return budget_;
}

void* Scope::device_bytes(int64_t bytes) {
  if (!surely_fits(bytes) && bytes > available()) {
    throw DeviceOutOfMemory("CUDA: " + mebibytes(bytes) + " of device memory are needed, the budget has " +
                            mebibytes(std::max<int64_t>(available(), 0)) + " left of " + mebibytes(budget_));
  }
  device_.reserve(device_.size() + 1);
  // With a budget of its own device_memory may be 0: no block is larger than what was asked for.
  const int64_t spare = context.options.memory_budget == 0 ? context.device_memory / spared_part : 0;
  Block block = context.device_pool.take(bytes, bytes + std::min(bytes, spare));
  if (block.memory == nullptr) {
    block.bytes = bytes;
    if (used_ + block.bytes + context.device_pool.bytes() > budget()) {
      context.trim_device();
    }
    cudaError_t status = cudaMalloc(&block.memory, static_cast<size_t>(block.bytes));
    if (status == cudaErrorMemoryAllocation && context.device_pool.bytes() > 0) {
      static_cast<void>(cudaGetLastError());
      context.trim_device();
      status = cudaMalloc(&block.memory, static_cast<size_t>(block.bytes));
    }
    check(status, "cudaMalloc");
  }
  device_.push_back({.block = block, .charged = bytes});
  used_ += bytes;
  most_ = std::max(most_, used_);
  return block.memory;
}

void Scope::release_to(const Mark& mark) {
  while (device_.size() > mark.blocks) {
    used_ -= device_.back().charged;
    context.device_pool.give(device_.back().block);
    device_.pop_back();
  }
}

void* Scope::pinned_bytes(int64_t bytes) {
  pinned_.reserve(pinned_.size() + 1);
  Block block = context.pinned_pool.take(bytes, 2 * bytes);
  if (block.memory == nullptr) {
    block.bytes = bytes;
    KRRDISTILL_CHECK(cudaMallocHost(&block.memory, static_cast<size_t>(block.bytes)));
  }
  pinned_.push_back(block);
  return block.memory;
}

Block Scope::let_go(void* memory) {
  const auto found =
      std::find_if(device_.begin(), device_.end(), [memory](const Held& held) { return held.block.memory == memory; });
  const Block block = found->block;
  device_.erase(found);
  return block;
}

std::shared_ptr<void> Scope::keep_bytes(void* memory) {
  let_go(memory);
  return {memory, [device = context.options.device](void* kept) { free_on(device, kept); }};
}

std::shared_ptr<void> Scope::keep_bytes_here(void* memory) {
  auto owner = context.shared_from_this();
  const Block block = let_go(memory);
  return {memory, [owner = std::move(owner), block](void*) mutable {
            owner->take_back(block);
            owner.reset();  // the weak pointers of `kept` would keep it
          }};
}

const void* Scope::kept(const KeptKey& key) {
  const auto found = context.kept.find(key);
  auto copy = found == context.kept.end() ? nullptr : found->second.lock();
  const void* memory = copy.get();
  if (copy != nullptr) {
    held_.push_back(std::move(copy));
  }
  return memory;
}

cudaEvent_t Scope::event() {
  events_.reserve(events_.size() + 1);
  cudaEvent_t made = nullptr;
  KRRDISTILL_CHECK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
  events_.push_back(made);
  return made;
}

// Pageable memory goes through the driver's own pinned buffer, filled by one thread: 7 GB/s where the bus takes 53 and
// several threads fill 21. So larger copies go through two buffers of ours, by turns.
void Scope::send(void* to, int64_t to_pitch, const void* from, int64_t rows, int64_t row_bytes) {
  cudaStream_t stream = context.compute;
  if (rows == 1 || to_pitch == row_bytes) {
    row_bytes *= rows;
    to_pitch = row_bytes;
    rows = std::min<int64_t>(rows, 1);
  }
  if (rows * row_bytes <= direct_bytes) {
    if (rows * row_bytes > 0) {
      KRRDISTILL_CHECK(cudaMemcpy2DAsync(to, static_cast<size_t>(to_pitch), from, static_cast<size_t>(row_bytes),
                                         static_cast<size_t>(row_bytes), static_cast<size_t>(rows),
                                         cudaMemcpyHostToDevice, stream));
      KRRDISTILL_CHECK(cudaStreamSynchronize(stream));
    }
    return;
  }
  // Parts of whole rows, or parts of one long row: then a unit is a byte.
  const bool single = rows == 1;
  const int64_t step = single ? ring_bytes : std::max<int64_t>(1, ring_bytes / row_bytes);
  const int64_t count = single ? row_bytes : rows, unit = single ? 1 : row_bytes, stride = single ? 1 : to_pitch;
  make_ring(std::max(ring_bytes, unit));
  for (int64_t first = 0, number = 0; first < count; first += step, ++number) {
    const int64_t part = std::min(step, count - first);
    const auto slot = static_cast<size_t>(number % 2);
    KRRDISTILL_CHECK(cudaEventSynchronize(ring_free_[slot]));
    copy_on_host(ring_[slot].memory, static_cast<const std::byte*>(from) + first * unit, part * unit);
    auto* target = static_cast<std::byte*>(to) + first * stride;
    const auto width = static_cast<size_t>(single ? part : unit);
    KRRDISTILL_CHECK(cudaMemcpy2DAsync(target, single ? width : static_cast<size_t>(stride), ring_[slot].memory, width,
                                       width, static_cast<size_t>(single ? 1 : part), cudaMemcpyHostToDevice, stream));
    KRRDISTILL_CHECK(cudaEventRecord(ring_free_[slot], stream));
  }
}

void Scope::receive(void* to, const void* from, int64_t bytes) {
  cudaStream_t stream = context.compute;
  if (bytes <= direct_bytes) {
    if (bytes > 0) {
      KRRDISTILL_CHECK(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream));
    }
    KRRDISTILL_CHECK(cudaStreamSynchronize(stream));
    return;
  }
  make_ring(ring_bytes);
  const auto part_of = [bytes](int64_t first) { return std::min(ring_bytes, bytes - first); };
  const auto fetch = [&](int64_t first) {
    const auto slot = static_cast<size_t>(first / ring_bytes % 2);
    KRRDISTILL_CHECK(cudaMemcpyAsync(ring_[slot].memory, static_cast<const std::byte*>(from) + first,
                                     static_cast<size_t>(part_of(first)), cudaMemcpyDeviceToHost, stream));
    KRRDISTILL_CHECK(cudaEventRecord(ring_free_[slot], stream));
  };
  fetch(0);  // behind what `send` still reads of the ring, in the same stream
  for (int64_t first = 0; first < bytes; first += ring_bytes) {
    if (first + ring_bytes < bytes) {
      fetch(first + ring_bytes);
    }
    const auto slot = static_cast<size_t>(first / ring_bytes % 2);
    KRRDISTILL_CHECK(cudaEventSynchronize(ring_free_[slot]));
    copy_on_host(static_cast<std::byte*>(to) + first, ring_[slot].memory, part_of(first));
  }
}

void Scope::download_strided(double* host, const double* device, int64_t n, int64_t stride) {
  if (n > 0) {
    KRRDISTILL_CHECK(cudaMemcpy2DAsync(host, sizeof(double), device, static_cast<size_t>(stride) * sizeof(double),
                                       sizeof(double), static_cast<size_t>(n), cudaMemcpyDeviceToHost,
                                       context.compute));
    KRRDISTILL_CHECK(cudaStreamSynchronize(context.compute));
  }
}

void Scope::make_ring(int64_t bytes) {
  for (size_t slot = 0; slot < ring_.size(); ++slot) {
    if (ring_free_[slot] == nullptr) {
      ring_free_[slot] = event();
    }
    if (ring_[slot].bytes < bytes) {
      ring_[slot] = {.memory = pinned_bytes(bytes), .bytes = bytes};
    }
  }
}

int64_t Scope::fit_rows(const char* operation, int64_t fixed, int64_t per_row, int64_t wanted) {
  needed_ = used_ + fixed + per_row * wanted;
  if (needed_ <= waiting_ || (needed_ == context.fitted.needed && context.fitted.taken <= waiting_)) {
    return wanted;
  }
  const int64_t rows = std::min((available() - fixed) / per_row, wanted);
  if (available() < fixed || rows < 1) {
    throw DeviceOutOfMemory(std::string("CUDA: ") + operation + " needs at least " + mebibytes(fixed + per_row) +
                            " of device memory, " + mebibytes(available()) + " are available");
  }
  needed_ -= per_row * (wanted - rows);
  return rows;
}

}  // namespace krrdistill::cuda
