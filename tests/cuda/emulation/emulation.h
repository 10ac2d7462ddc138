// A GPU on the host, as strict as the real one is allowed to be:
//
// * Streams are queues. By default ("late") nothing runs before somebody waits for it, and then only what is needed:
//   a missing event or synchronisation shows as wrong numbers. "eager" runs everything at once.
// * Threads of a block are fibers that run until a barrier or shuffle, forward, backward or shuffled: a missing
//   barrier shows as a difference. Shared memory holds NaN before each block and has no more bytes than were asked for.
// * Device memory holds NaN when it is new; copies must lie inside of it. In AddressSanitizer builds the host cannot
//   touch it.
// * Each thread of the host has a current device. Memory, streams, events and handles belong to one device, and where
//   CUDA needs that one to be current, or two of them to be of one device, anything else is an error.
// * Every call that can fail counts; any one of them can be made to fail. What is allocated counts too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace emulation {

struct Stream;
struct Event;

struct Grid {
  unsigned blocks_x;
  unsigned blocks_y;
  unsigned threads;
  size_t shared_bytes;
};

// ---- for the tests

enum class Order { forward, reverse, shuffled };

struct Settings {
  Order order = Order::forward;
  bool eager = false;
  int64_t fail_at = 0;  // the number of the call that fails, counted from 1; 0: none
  int64_t calls = 0;    // so far
  int64_t asked = 0;    // how often for devices, which initialises a driver
  std::string failed;   // the name of the call that was made to fail
  int factor_info = 0;  // what a routine of LAPACK reports instead of its own
  int factor_at = 1;    // which one, counted from 1
  int driver_version = 13000;
  int devices = 1;
  int compute_major = 9;
  int64_t memory = int64_t{1} << 32;
};
Settings& settings();

// The device that cudaSetDevice made current for this thread.
int& current_device();

// Allocations, streams, events and handles that exist.
int64_t live_objects();

// What streams that somebody made have not done yet.
int64_t pending();

// The largest number of bytes of device memory that were allocated at one time since the last call.
int64_t peak_bytes();

// Bytes that copies moved between host and device since the last call.
struct Bus {
  int64_t to_device = 0;
  int64_t to_host = 0;
};
Bus bus_bytes();

// ---- for the emulated interfaces

// Counts one call; true when it is the one to fail.
bool fails(const char* name);
void object_made();
void object_gone();

// Runs `work` in the stream, now or later. Streams 1 and 2 are CUDA's names for the legacy and the per-thread default
// stream, which always exist.
void enqueue(Stream* stream, std::function<void()> work);

// The device of a stream; of the default streams every device has its own.
int device_of(const Stream* stream);

// Whether kernels of the current device may use what a pointer leads to.
bool reachable_memory(const void* memory);
template <typename T>
bool reachable(const T&) {
  return true;
}
template <typename T>
bool reachable(T* const& memory) {
  return reachable_memory(memory);
}

void drain(Stream* stream);

// `stream` waits for what is in `other` by now.
void wait_for(Stream* stream, Stream* other);

int launch(Stream* stream, void* kernel, const Grid& grid, std::function<void()> thread);
bool allow_shared(void* kernel, int attribute, int bytes);
void wait_for_block();
uint64_t shuffle_down(unsigned mask, uint64_t bits, int delta, int width);

// Host code may not touch device memory, what runs in a stream may.
bool inside_device_memory(const void* memory, size_t bytes);

}  // namespace emulation
