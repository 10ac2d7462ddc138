// Which instruction set the kernels use (amx: avx512, and products on its tiles): the best that the CPU has and the
// build contains, or the one named by the environment variable KRRDISTILL_ISA.
#pragma once

#include <string>
#include <vector>

namespace krrdistill {

enum class Isa { base = 0, avx2 = 1, avx512 = 2, amx = 3 };

const char* isa_name(Isa isa);
std::vector<Isa> available_isas();       // compiled in and supported by this CPU, ascending
Isa parse_isa(const std::string& name);  // throws std::invalid_argument naming what is available
Isa current_isa();                       // read once, from the environment or the CPU
void set_isa(Isa isa);                   // for tests

}  // namespace krrdistill
