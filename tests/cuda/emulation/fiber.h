// Fibers: functions that can be left in the middle and resumed. One thread of the host uses them.
#pragma once

namespace fiber {

struct Fiber;

// Runs `function` on a fiber until it returns or leaves.
void start(void (*function)());
void resume(Fiber* fiber);

// From inside: the fiber that runs, and back to who started or resumed it.
Fiber* current();
void leave();

}  // namespace fiber
