// Long operations can be stopped between two of their steps: tiles of rows, panels of a matrix, lambdas.
#pragma once

namespace krrdistill {

// Called before each step, in the thread that called the operation; what it throws ends the operation, whose outputs
// are then unfinished. Null, the default: nothing is called.
using InterruptCheck = void (*)();
void set_interrupt_check(InterruptCheck check);

// What the operations call.
void check_interrupt();

}  // namespace krrdistill
