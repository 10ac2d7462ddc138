#include "fiber.h"

#include <ucontext.h>

#include <cstddef>
#include <memory>
#include <vector>

#ifdef KRRDISTILL_SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

namespace fiber {

struct Fiber {
  static constexpr size_t stack_bytes = 128 << 10;
  ucontext_t context{};
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  void (*function)() = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

namespace {

ucontext_t caller;
Fiber* running = nullptr;
std::vector<std::unique_ptr<Fiber>> all;
std::vector<Fiber*> idle;

#ifdef KRRDISTILL_SANITIZED
const void* caller_stack = nullptr;
size_t caller_bytes = 0;
void start_switch(void** save, const void* stack, size_t bytes) { __sanitizer_start_switch_fiber(save, stack, bytes); }
void finish_switch(void* saved, const void** stack, size_t* bytes) {
  __sanitizer_finish_switch_fiber(saved, stack, bytes);
}
#else
const void* caller_stack = nullptr;
size_t caller_bytes = 0;
void start_switch(void**, const void*, size_t) {}
void finish_switch(void*, const void**, size_t*) {}
#endif

// An idle fiber waits in this loop for its next function: contexts are made once.
void main() {
  finish_switch(nullptr, &caller_stack, &caller_bytes);
  for (;;) {
    running->function();
    idle.push_back(running);
    leave();
  }
}

void enter(Fiber* fiber) {
  running = fiber;
  void* fake_stack = nullptr;
  start_switch(&fake_stack, fiber->stack.get(), Fiber::stack_bytes);
  swapcontext(&caller, &fiber->context);
  finish_switch(fake_stack, nullptr, nullptr);
  running = nullptr;
}

}  // namespace

void start(void (*function)()) {
  if (idle.empty()) {
    Fiber* made = all.emplace_back(std::make_unique<Fiber>()).get();
    getcontext(&made->context);
    made->context.uc_stack.ss_sp = made->stack.get();
    made->context.uc_stack.ss_size = Fiber::stack_bytes;
    makecontext(&made->context, &main, 0);
    idle.push_back(made);
  }
  Fiber* fiber = idle.back();
  idle.pop_back();
  fiber->function = function;
  enter(fiber);
}

void resume(Fiber* fiber) { enter(fiber); }

Fiber* current() { return running; }

void leave() {
  Fiber* fiber = running;
  start_switch(&fiber->fake_stack, caller_stack, caller_bytes);
  swapcontext(&fiber->context, &caller);
  finish_switch(fiber->fake_stack, &caller_stack, &caller_bytes);
}

}  // namespace fiber
