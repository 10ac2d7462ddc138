#include "cuda/runtime.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>

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

std::string mebibytes(int64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MiB"; }

}  // namespace

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) {
    return;
  }
  static_cast<void>(cudaGetLastError());  // the runtime would report it again
  const std::string reason = std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")";
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

Context::Context(const Options& given) : options(given) {
  int previous = 0;
  KRRDISTILL_CHECK(cudaGetDevice(&previous));
  KRRDISTILL_CHECK(cudaSetDevice(options.device));
  try {
    compute = static_cast<cudaStream_t>(options.stream);
    if (compute == nullptr) {
      KRRDISTILL_CHECK(cudaStreamCreateWithFlags(&compute, cudaStreamNonBlocking));
    }
    KRRDISTILL_CHECK(cudaStreamCreateWithFlags(&copy, cudaStreamNonBlocking));
    KRRDISTILL_CHECK(cublasCreate(&blas));
    KRRDISTILL_CHECK(cublasSetStream(blas, compute));
    KRRDISTILL_CHECK(cublasSetMathMode(
        blas, options.products == Products::tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_DEFAULT_MATH));
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
  int previous = options.device;
  static_cast<void>(cudaGetDevice(&previous));
  static_cast<void>(cudaSetDevice(options.device));
  destroy();
  static_cast<void>(cudaSetDevice(previous));
}

void Context::destroy() noexcept {
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

void* reading_stream(const Context& context) { return context.copy; }

DriverFacts driver_facts() {
  DriverFacts facts;
  KRRDISTILL_CHECK(cudaRuntimeGetVersion(&facts.runtime));
  KRRDISTILL_CHECK(cudaDriverGetVersion(&facts.driver));
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    facts.error = cudaGetErrorString(status);
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

Scope::Scope(Context& of) : context(of), lock_(of.mutex) {
  KRRDISTILL_CHECK(cudaGetDevice(&previous_device_));
  KRRDISTILL_CHECK(cudaSetDevice(context.options.device));
  budget_ = context.options.memory_budget;
  if (budget_ == 0) {
    size_t free = 0, total = 0;
    const cudaError_t status = cudaMemGetInfo(&free, &total);
    if (status != cudaSuccess) {  // no destructor will run
      static_cast<void>(cudaSetDevice(previous_device_));
    }
    check(status, "cudaMemGetInfo");
    budget_ = static_cast<int64_t>(free / 10 * 9);
  }
}

Scope::~Scope() {
  // Errors were reported where they happened; what remains is to let go of everything.
  static_cast<void>(cudaStreamSynchronize(context.copy));
  static_cast<void>(cudaStreamSynchronize(context.compute));
  for (cudaEvent_t event : events_) {
    static_cast<void>(cudaEventDestroy(event));
  }
  for (void* memory : device_) {
    static_cast<void>(cudaFree(memory));
  }
  for (void* memory : pinned_) {
    static_cast<void>(cudaFreeHost(memory));
  }
  static_cast<void>(cudaSetDevice(previous_device_));
}

void* Scope::device_bytes(int64_t bytes) {
  if (bytes > available()) {
    throw DeviceOutOfMemory("CUDA: " + mebibytes(bytes) + " of device memory are needed, the budget has " +
                            mebibytes(available() > 0 ? available() : 0) + " left of " + mebibytes(budget_));
  }
  device_.reserve(device_.size() + 1);
  void* memory = nullptr;
  KRRDISTILL_CHECK(cudaMalloc(&memory, static_cast<size_t>(bytes)));
  device_.push_back(memory);
  used_ += bytes;
  return memory;
}

void Scope::release_to(const Mark& mark) {
  while (device_.size() > mark.blocks) {
    void* memory = device_.back();
    device_.pop_back();
    KRRDISTILL_CHECK(cudaFree(memory));
  }
  used_ = mark.used;
}

void* Scope::pinned_bytes(int64_t bytes) {
  pinned_.reserve(pinned_.size() + 1);
  void* memory = nullptr;
  KRRDISTILL_CHECK(cudaMallocHost(&memory, static_cast<size_t>(bytes)));
  pinned_.push_back(memory);
  return memory;
}

std::shared_ptr<void> Scope::keep_bytes(void* memory) {
  device_.erase(std::find(device_.begin(), device_.end(), memory));
  return {memory, [device = context.options.device](void* kept) {
            int previous = device;
            static_cast<void>(cudaGetDevice(&previous));
            static_cast<void>(cudaSetDevice(device));
            static_cast<void>(cudaFree(kept));
            static_cast<void>(cudaSetDevice(previous));
          }};
}

cudaEvent_t Scope::event() {
  events_.reserve(events_.size() + 1);
  cudaEvent_t made = nullptr;
  KRRDISTILL_CHECK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
  events_.push_back(made);
  return made;
}

void Scope::copy_rows(void* to, int64_t to_pitch, const void* from, int64_t row_bytes, int64_t rows,
                      cudaMemcpyKind kind) {
  const auto width = static_cast<size_t>(row_bytes);
  if (rows == 0 || width == 0) {
    return;
  }
  if (rows == 1) {
    KRRDISTILL_CHECK(cudaMemcpyAsync(to, from, width, kind, context.compute));
  } else {
    KRRDISTILL_CHECK(cudaMemcpy2DAsync(to, static_cast<size_t>(to_pitch), from, width, width, static_cast<size_t>(rows),
                                       kind, context.compute));
  }
  KRRDISTILL_CHECK(cudaStreamSynchronize(context.compute));
}

int64_t Scope::fit_rows(const char* operation, int64_t fixed, int64_t per_row, int64_t wanted) const {
  const int64_t rows = (available() - fixed) / per_row;
  if (available() < fixed || rows < 1) {
    throw DeviceOutOfMemory(std::string("CUDA: ") + operation + " needs at least " + mebibytes(fixed + per_row) +
                            " of device memory, " + mebibytes(available()) + " are available");
  }
  return rows < wanted ? rows : wanted;
}

}  // namespace krrdistill::cuda
