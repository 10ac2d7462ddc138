#include "emulation.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"

#ifdef KRRDISTILL_SANITIZED
#include <sanitizer/asan_interface.h>
#endif

dim3 blockIdx, blockDim, gridDim, threadIdx;

namespace krrdistill::cuda {
alignas(32) unsigned char shared_bytes[227 << 10];  // of a block of compute capability 9.0
}

namespace emulation {

struct Stream {
  int device = 0;
  std::deque<std::function<void()>> queue = {};
  int64_t enqueued = 0;
  int64_t executed = 0;
};

struct Event {
  int device = 0;
  Stream* stream = nullptr;
  int64_t position = 0;
};

namespace {

struct Memory {
  size_t bytes;
  int device;
};
std::map<const void*, Memory> device_memory;
std::recursive_mutex memory_mutex;  // threads of the host may allocate and free while another one works
using MemoryLock = std::lock_guard<std::recursive_mutex>;
std::map<std::pair<void*, int>, int> shared_limits;  // of a kernel on a device
std::set<Stream*> streams;
std::atomic<int64_t> objects = 0;
int64_t bytes_now = 0;
int64_t bytes_peak = 0;
Bus bus;
std::map<std::string, int64_t> named_calls;
std::mutex calls_mutex;
int running = 0;  // nested drains: a stream may wait for another

[[noreturn]] void abort_with(const char* message) {
  std::fprintf(stderr, "emulation: %s\n", message);
  std::abort();
}

void guard(const void* memory, size_t bytes, bool poisoned) {
#ifdef KRRDISTILL_SANITIZED
  if (poisoned) {
    ASAN_POISON_MEMORY_REGION(memory, bytes);
  } else {
    ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
  }
#else
  static_cast<void>(memory);
  static_cast<void>(bytes);
  static_cast<void>(poisoned);
#endif
}

void guard_all(bool poisoned) {
  const MemoryLock lock(memory_mutex);
  for (const auto& [memory, block] : device_memory) {
    guard(memory, block.bytes, poisoned);
  }
}

Stream* resolve(Stream* stream) {
  static std::map<std::pair<int, uintptr_t>, Stream> defaults;
  const auto name = reinterpret_cast<uintptr_t>(stream);
  if (name != 1 && name != 2) {
    return stream;
  }
  Stream& found = defaults[{current_device(), name}];
  found.device = current_device();
  return &found;
}

void drain_until(Stream* stream, int64_t position) {
  while (stream->executed < position) {
    const auto work = std::move(stream->queue.front());
    stream->queue.pop_front();
    ++stream->executed;
    if (running++ == 0) {
      guard_all(false);
    }
    work();
    if (--running == 0) {
      guard_all(true);
    }
  }
}

// ---- threads of a block

enum class State { ready, at_block, at_warp, done };

struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  size_t zeros;
};

struct Block {
  unsigned threads = 0;
  std::vector<unsigned> order;
  std::vector<State> state;
  std::vector<fiber::Fiber*> fiber;
  std::vector<uint64_t> slot;                         // what each thread offers in a shuffle
  std::vector<std::deque<std::vector<Copy>>> copies;  // of each thread, by groups; none, if no thread has any
  unsigned cursor = 0;                                // threads of `order` that were started
  unsigned current = 0;
  const std::function<void()>* body = nullptr;
};
Block block;

void set_thread(unsigned thread) {
  block.current = thread;
  threadIdx.x = thread;
}

// A fiber takes one thread after another until one of them waits: what has no barrier is a plain loop.
void run_threads() {
  while (block.cursor < block.threads) {
    const unsigned thread = block.order[block.cursor++];
    set_thread(thread);
    block.state[thread] = State::ready;
    block.fiber[thread] = fiber::current();
    (*block.body)();
    if (!block.copies.empty() && !std::ranges::all_of(block.copies[thread], &std::vector<Copy>::empty)) {
      abort_with("a thread ends before its copies have arrived");
    }
    block.state[thread] = State::done;
  }
}

void wait(State state) {
  const unsigned thread = block.current;
  block.state[thread] = state;
  fiber::leave();
  set_thread(thread);
}

bool release(State state, unsigned first, unsigned last) {
  bool any = false;
  for (unsigned t = first; t < last; ++t) {
    if (block.state[t] != state && block.state[t] != State::done) {
      return false;
    }
    any = any || block.state[t] == state;
  }
  for (unsigned t = first; any && t < last; ++t) {
    if (block.state[t] == state) {
      block.state[t] = State::ready;
    }
  }
  return any;
}

void run_block(unsigned threads, const std::function<void()>& body) {
  block.threads = threads;
  block.order.resize(threads);
  for (unsigned t = 0; t < threads; ++t) {
    block.order[t] = settings().order == Order::reverse ? threads - 1 - t : t;
  }
  static std::mt19937 generator(12345);
  if (settings().order == Order::shuffled) {
    std::shuffle(block.order.begin(), block.order.end(), generator);
  }
  block.state.assign(threads, State::ready);
  block.fiber.assign(threads, nullptr);
  block.slot.assign(threads, 0);
  block.copies.clear();
  block.cursor = 0;
  block.body = &body;
  while (block.cursor < threads) {
    fiber::start(&run_threads);
  }
  for (;;) {
    bool progress = false;
    for (unsigned t = 0; t < threads; t += 32) {
      progress = release(State::at_warp, t, std::min(t + 32, threads)) || progress;
    }
    if (!progress && !release(State::at_block, 0, threads)) {
      break;
    }
    for (const unsigned thread : block.order) {
      if (block.state[thread] == State::ready) {
        set_thread(thread);
        fiber::resume(block.fiber[thread]);
      }
    }
  }
  if (std::any_of(block.state.begin(), block.state.end(), [](State state) { return state != State::done; })) {
    abort_with("threads of a block wait at different barriers");
  }
}

void run_grid(const Grid& grid, const std::function<void()>& thread) {
  using krrdistill::cuda::shared_bytes;
  gridDim = dim3(grid.blocks_x, grid.blocks_y);
  blockDim = dim3(grid.threads);
  for (unsigned index = 0; index < grid.blocks_x * grid.blocks_y; ++index) {
    const unsigned ordered = settings().order == Order::forward ? index : grid.blocks_x * grid.blocks_y - 1 - index;
    blockIdx = dim3(ordered % grid.blocks_x, ordered / grid.blocks_x);
    std::memset(shared_bytes, 0xFF, grid.shared_bytes);
    guard(shared_bytes + grid.shared_bytes, sizeof(shared_bytes) - grid.shared_bytes, true);
    run_block(grid.threads, thread);
    guard(shared_bytes, sizeof(shared_bytes), false);
  }
}

}  // namespace

Settings& settings() {
  static Settings value;
  return value;
}

int& current_device() {
  static thread_local int device = 0;
  return device;
}

int64_t live_objects() { return objects; }

int64_t pending() {
  int64_t sum = 0;
  for (const Stream* stream : streams) {
    sum += stream->enqueued - stream->executed;
  }
  return sum;
}

Bus bus_bytes() {
  const Bus moved = bus;
  bus = {};
  return moved;
}

std::map<std::string, int64_t> calls_by_name() {
  const std::lock_guard<std::mutex> lock(calls_mutex);
  return std::exchange(named_calls, {});
}

void count(const char* name) {
  const std::lock_guard<std::mutex> lock(calls_mutex);
  ++named_calls[name];
}

int64_t peak_bytes() {
  const int64_t peak = bytes_peak;
  bytes_peak = bytes_now;
  return peak;
}

bool fails(const char* name) {
  count(name);
  Settings& s = settings();
  if (++s.calls != s.fail_at) {
    return false;
  }
  s.failed = name;
  return true;
}

void object_made() { ++objects; }
void object_gone() { --objects; }

void enqueue(Stream* name, std::function<void()> work) {
  Stream* stream = resolve(name);
  stream->queue.push_back(std::move(work));
  ++stream->enqueued;
  if (settings().eager) {
    drain(stream);
  }
}

void drain(Stream* stream) { drain_until(resolve(stream), resolve(stream)->enqueued); }

int device_of(const Stream* stream) { return resolve(const_cast<Stream*>(stream))->device; }

void wait_for(Stream* stream, Stream* other) {
  enqueue(stream, [other = resolve(other), position = resolve(other)->enqueued] { drain_until(other, position); });
}

int launch(Stream* stream, void* kernel, const Grid& grid, std::function<void()> thread) {
  if (fails("launch")) {
    return cudaErrorLaunchFailure;
  }
  if (device_of(stream) != current_device()) {
    return cudaErrorInvalidResourceHandle;
  }
  const auto limit = shared_limits.find({kernel, current_device()});
  const size_t shared = limit == shared_limits.end() ? 48 << 10 : static_cast<size_t>(limit->second);
  if (grid.threads < 1 || grid.threads > 1024 || grid.blocks_x < 1 || grid.blocks_y < 1 || grid.blocks_y > 65535 ||
      grid.shared_bytes > shared) {
    return cudaErrorInvalidConfiguration;
  }
  enqueue(stream, [grid, thread = std::move(thread)] { run_grid(grid, thread); });
  return cudaSuccess;
}

bool allow_shared(void* kernel, int, int bytes) {
  if (fails("cudaFuncSetAttribute") || static_cast<size_t>(bytes) > sizeof(krrdistill::cuda::shared_bytes)) {
    return false;
  }
  shared_limits[{kernel, current_device()}] = bytes;
  return true;
}

void wait_for_block() { wait(State::at_block); }

namespace {

void carry_out(const Copy& copy) {
  const size_t kept = copy.bytes - copy.zeros;
  if (kept > 0 && !inside_device_memory(copy.from, kept)) {
    abort_with("a copy into shared memory that does not come from device memory");
  }
  std::memcpy(copy.to, copy.from, kept);
  std::memset(static_cast<char*>(copy.to) + kept, 0, copy.zeros);
}

// Groups of the current thread; the last one is not committed.
std::deque<std::vector<Copy>>& groups_of_copies() {
  if (block.copies.empty()) {
    block.copies.resize(block.threads);
  }
  auto& groups = block.copies[block.current];
  if (groups.empty()) {
    groups.emplace_back();
  }
  return groups;
}

}  // namespace

void copy_later(void* to, const void* from, size_t bytes, size_t zeros) {
  const auto start = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from);
  if ((bytes != 4 && bytes != 8 && bytes != 16) || start % bytes != 0 || zeros > bytes) {
    abort_with("a copy into shared memory that does not start on a boundary of its size");
  }
  const Copy copy{.to = to, .from = from, .bytes = bytes, .zeros = zeros};
  if (settings().eager) {
    carry_out(copy);
  } else {
    groups_of_copies().back().push_back(copy);
  }
}

void commit_copies() { groups_of_copies().emplace_back(); }

void wait_for_copies(size_t but) {
  auto& groups = groups_of_copies();
  while (groups.size() > but + 1) {
    for (const Copy& copy : groups.front()) {
      carry_out(copy);
    }
    groups.pop_front();
  }
}

uint64_t shuffle_down(unsigned mask, uint64_t bits, int delta, int width) {
  const unsigned thread = block.current, lane = thread % 32;
  if (mask != 0xFFFFFFFFU || block.threads % 32 != 0) {
    abort_with("a shuffle needs all lanes of a warp");
  }
  block.slot[thread] = bits;
  wait(State::at_warp);
  const unsigned member = lane % static_cast<unsigned>(width);
  const unsigned other = member + static_cast<unsigned>(delta);
  const uint64_t result = block.slot[other < static_cast<unsigned>(width) ? thread - member + other : thread];
  wait(State::at_warp);
  return result;
}

namespace {

// The block of device memory that holds these bytes, or null.
const Memory* block_of(const void* memory, size_t bytes) {
  auto found = device_memory.upper_bound(memory);
  if (found == device_memory.begin()) {
    return nullptr;
  }
  --found;
  const auto offset = static_cast<size_t>(static_cast<const char*>(memory) - static_cast<const char*>(found->first));
  return offset + bytes <= found->second.bytes ? &found->second : nullptr;
}

}  // namespace

bool inside_device_memory(const void* memory, size_t bytes) {
  const MemoryLock lock(memory_mutex);
  return block_of(memory, bytes) != nullptr;
}

bool reachable_memory(const void* memory) {
  const MemoryLock lock(memory_mutex);
  const Memory* found = block_of(memory, 1);
  return found == nullptr || found->device == current_device();
}

}  // namespace emulation

// ---- the runtime

using emulation::settings;

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    default:
      return "emulated error";
  }
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidResourceHandle:
      return "cudaErrorInvalidResourceHandle";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    default:
      return "cudaErrorUnknown";
  }
}

cudaError_t cudaGetLastError() { return cudaSuccess; }

#define KRRDISTILL_FALLIBLE(name) \
  if (emulation::fails(name)) {   \
    return cudaErrorUnknown;      \
  }

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = settings().driver_version;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  ++settings().asked;
  if (settings().driver_version < 13000) {
    return cudaErrorInsufficientDriver;
  }
  *count = settings().devices;
  return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= settings().devices) {
    return cudaErrorInvalidDevice;
  }
  std::snprintf(properties->name, sizeof(properties->name), "emulated GPU");
  properties->major = settings().compute_major;
  properties->minor = 0;
  properties->totalGlobalMem = static_cast<size_t>(settings().memory);
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  KRRDISTILL_FALLIBLE("cudaDeviceGetAttribute")
  if (device < 0 || device >= settings().devices) {
    return cudaErrorInvalidDevice;
  }
  *value = settings().multiprocessors;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  KRRDISTILL_FALLIBLE("cudaGetDevice")
  *device = emulation::current_device();
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  KRRDISTILL_FALLIBLE("cudaSetDevice")
  if (device < 0 || device >= settings().devices) {
    return cudaErrorInvalidDevice;
  }
  emulation::current_device() = device;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  KRRDISTILL_FALLIBLE("cudaMemGetInfo")
  *total = static_cast<size_t>(settings().memory);
  *free = static_cast<size_t>(settings().memory - emulation::bytes_now);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const emulation::MemoryLock lock(emulation::memory_mutex);
  if (emulation::fails("cudaMalloc") || emulation::bytes_now + static_cast<int64_t>(bytes) > settings().memory) {
    return cudaErrorMemoryAllocation;
  }
  *memory = ::operator new(bytes, std::align_val_t{256});
  std::memset(*memory, 0xFF, bytes);
  emulation::guard(*memory, bytes, true);
  emulation::device_memory[*memory] = {.bytes = bytes, .device = emulation::current_device()};
  emulation::bytes_now += static_cast<int64_t>(bytes);
  emulation::bytes_peak = std::max(emulation::bytes_peak, emulation::bytes_now);
  emulation::object_made();
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  emulation::count("cudaFree");
  const emulation::MemoryLock lock(emulation::memory_mutex);
  const auto found = emulation::device_memory.find(memory);
  if (found == emulation::device_memory.end()) {
    return cudaErrorInvalidValue;
  }
  emulation::guard(memory, found->second.bytes, false);
  std::memset(memory, 0xFF, found->second.bytes);  // who still reads it finds NaN
  emulation::bytes_now -= static_cast<int64_t>(found->second.bytes);
  emulation::device_memory.erase(found);
  ::operator delete(memory, std::align_val_t{256});
  emulation::object_gone();
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  if (emulation::fails("cudaMallocHost")) {
    return cudaErrorMemoryAllocation;
  }
  *memory = ::operator new(bytes, std::align_val_t{64});
  emulation::object_made();
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  emulation::count("cudaFreeHost");
  ::operator delete(memory, std::align_val_t{64});
  emulation::object_gone();
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  KRRDISTILL_FALLIBLE("cudaStreamCreateWithFlags")
  *stream = new emulation::Stream{.device = emulation::current_device()};
  emulation::streams.insert(*stream);
  emulation::object_made();
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  emulation::drain(stream);
  emulation::streams.erase(stream);
  delete stream;
  emulation::object_gone();
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  emulation::drain(stream);  // also when the call then fails: nothing is left behind
  KRRDISTILL_FALLIBLE("cudaStreamSynchronize")
  return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  KRRDISTILL_FALLIBLE("cudaStreamWaitEvent")
  if (event->stream != nullptr) {
    emulation::enqueue(stream, [recorded = *event] { emulation::drain_until(recorded.stream, recorded.position); });
  }
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  KRRDISTILL_FALLIBLE("cudaEventCreateWithFlags")
  *event = new emulation::Event{.device = emulation::current_device()};
  emulation::object_made();
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  emulation::object_gone();
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  KRRDISTILL_FALLIBLE("cudaEventRecord")
  if (event->device != emulation::device_of(stream)) {
    return cudaErrorInvalidResourceHandle;
  }
  *event = {
      .device = event->device, .stream = emulation::resolve(stream), .position = emulation::resolve(stream)->enqueued};
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  KRRDISTILL_FALLIBLE("cudaEventSynchronize")
  if (event->stream != nullptr) {
    emulation::drain_until(event->stream, event->position);
  }
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  KRRDISTILL_FALLIBLE("cudaMemcpyAsync")
  // Each side is on the device as a whole or not at all.
  const auto lies = [=](const void* memory, size_t pitch, bool on_device) {
    const size_t extent = on_device && height > 0 ? (height - 1) * pitch + width : 0;
    return pitch >= width && emulation::inside_device_memory(memory, extent) == on_device;
  };
  if (!lies(to, to_pitch, kind != cudaMemcpyDeviceToHost) || !lies(from, from_pitch, kind != cudaMemcpyHostToDevice)) {
    return cudaErrorInvalidValue;
  }
  if (kind != cudaMemcpyDeviceToDevice) {
    auto& direction = kind == cudaMemcpyHostToDevice ? emulation::bus.to_device : emulation::bus.to_host;
    direction += static_cast<int64_t>(width * height);
  }
  emulation::enqueue(stream, [=] {
    for (size_t i = 0; i < height; ++i) {
      std::memcpy(static_cast<char*>(to) + i * to_pitch, static_cast<const char*>(from) + i * from_pitch, width);
    }
  });
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  KRRDISTILL_FALLIBLE("cudaMemsetAsync")
  if (!emulation::inside_device_memory(memory, bytes)) {
    return cudaErrorInvalidValue;
  }
  emulation::enqueue(stream, [=] { std::memset(memory, value, bytes); });
  return cudaSuccess;
}
