#include "fiber.h"

#ifndef __x86_64__
#include <ucontext.h>
#endif

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#ifdef KRRDISTILL_SANITIZED
#include <sanitizer/common_interface_defs.h>
#endif

namespace fiber {

namespace {

#ifdef __x86_64__

// Where a stack was left. swapcontext would ask the kernel for the signal mask at each switch, nine tenths of the time
// of a kernel with barriers, and AddressSanitizer would forget at each what it knows of the stack.
using Context = uint64_t*;

// Keeps on its stack what functions preserve (System V ABI), leaves that stack, and returns on the other one.
extern "C" void switch_stacks(Context* from, const Context* to) asm("krrdistill_switch_stacks");
asm(R"(.pushsection .text
krrdistill_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq (%rsi), %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.popsection
)");

// The first switch to this stack calls `function`: six registers, its address, and no address to return to.
void prepare(Context* context, char* stack, size_t bytes, void (*function)()) {
  auto* top = reinterpret_cast<uint64_t*>(reinterpret_cast<uintptr_t>(stack + bytes) / 16 * 16);
  top[-1] = 0;
  top[-2] = reinterpret_cast<uint64_t>(function);
  *context = top - 8;
}

#else

using Context = ucontext_t;

void switch_stacks(Context* from, const Context* to) { swapcontext(from, to); }

void prepare(Context* context, char* stack, size_t bytes, void (*function)()) {
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = bytes;
  makecontext(context, function, 0);
}

#endif

}  // namespace

struct Fiber {
  static constexpr size_t stack_bytes = 128 << 10;
  Context context{};
  std::unique_ptr<char[]> stack{new char[stack_bytes]};
  void (*function)() = nullptr;
  void* fake_stack = nullptr;  // AddressSanitizer's
};

namespace {

Context caller{};
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
  switch_stacks(&caller, &fiber->context);
  finish_switch(fake_stack, nullptr, nullptr);
  running = nullptr;
}

}  // namespace

void start(void (*function)()) {
  if (idle.empty()) {
    Fiber* made = all.emplace_back(std::make_unique<Fiber>()).get();
    prepare(&made->context, made->stack.get(), Fiber::stack_bytes, &main);
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
  switch_stacks(&fiber->context, &caller);
  finish_switch(fiber->fake_stack, &caller_stack, &caller_bytes);
}

}  // namespace fiber
