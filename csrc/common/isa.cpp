#include "krrdistill/isa.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#ifdef KRRDISTILL_WITH_AVX2
#include <cpuid.h>
#endif
#ifdef KRRDISTILL_WITH_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace krrdistill {
namespace {

#ifdef KRRDISTILL_WITH_AVX2
// Whether the CPU converts float16: Clang before 18 does not know its name in __builtin_cpu_supports.
bool has_half() {
  unsigned int a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned int f16c = 1U << 29U;  // leaf 1, ECX
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & f16c) != 0;
}
#endif

// Whether the CPU has tiles of bfloat16 and int8 and the system lets this process use them, which Linux is asked for.
bool has_tiles() {
#ifdef KRRDISTILL_WITH_AMX
  unsigned int a = 0, b = 0, c = 0, d = 0;
  constexpr unsigned int wanted = 1U << 22U | 1U << 24U | 1U << 25U;  // leaf 7, EDX: bfloat16, tiles, int8
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & wanted) != wanted || !__builtin_cpu_supports("avx512bf16")) {
    return false;
  }
  constexpr int64_t request_permission = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::amx:
      return "amx";
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    case Isa::base:
      break;
  }
  return "base";
}

std::vector<Isa> available_isas() {
  std::vector<Isa> found{Isa::base};
#ifdef KRRDISTILL_WITH_AVX2
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") && has_half()) {
    found.push_back(Isa::avx2);
  }
#endif
#if defined(KRRDISTILL_WITH_AVX512) && defined(KRRDISTILL_WITH_AVX2)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && has_half()) {
    found.push_back(Isa::avx512);
    if (has_tiles()) {
      found.push_back(Isa::amx);
    }
  }
#endif
  return found;
}

Isa parse_isa(const std::string& name) {
  std::string names;
  for (const Isa isa : available_isas()) {
    if (name == isa_name(isa)) {
      return isa;
    }
    names += names.empty() ? "" : ", ";
    names += isa_name(isa);
  }
  throw std::invalid_argument("KRRDISTILL_ISA is '" + name + "', this build and CPU offer: " + names);
}

namespace {

Isa initial_isa() {
  const char* wanted = std::getenv("KRRDISTILL_ISA");
  return wanted != nullptr && *wanted != '\0' ? parse_isa(wanted) : available_isas().back();
}

std::atomic<int> chosen{-1};

}  // namespace

Isa current_isa() {
  if (chosen.load() < 0) {
    chosen = static_cast<int>(initial_isa());
  }
  return static_cast<Isa>(chosen.load());
}

void set_isa(Isa isa) { chosen = static_cast<int>(isa); }

}  // namespace krrdistill
