# One translation unit of element-wise kernels per instruction set; chosen at run time (csrc/common/isa.cpp).
include(CheckCXXCompilerFlag)

set(KRRDISTILL_AVX2_FLAGS -mavx2 -mfma -mbmi2)
set(KRRDISTILL_AVX512_FLAGS -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mbmi2 -mprefer-vector-width=512)

function(krrdistill_add_isa_kernels target)
  target_sources(${target} PRIVATE csrc/cpu/elementwise_base.cpp)
  set_source_files_properties(csrc/cpu/elementwise_base.cpp PROPERTIES COMPILE_OPTIONS "-O3")
  # Random numbers must be the same everywhere: no fused multiply-add where the source has two roundings.
  set_source_files_properties(csrc/cpu/normal.cpp PROPERTIES COMPILE_OPTIONS "-O3;-ffp-contract=off")
  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64|amd64")
    return()
  endif()
  foreach(isa IN ITEMS AVX2 AVX512)
    string(TOLOWER ${isa} lower)
    list(JOIN KRRDISTILL_${isa}_FLAGS " " joined)
    set(CMAKE_REQUIRED_FLAGS ${joined})
    check_cxx_compiler_flag("" KRRDISTILL_HAS_${isa})
    if(KRRDISTILL_HAS_${isa})
      target_sources(${target} PRIVATE csrc/cpu/elementwise_${lower}.cpp)
      set_source_files_properties(csrc/cpu/elementwise_${lower}.cpp
        PROPERTIES COMPILE_OPTIONS "-O3;${KRRDISTILL_${isa}_FLAGS}")
      target_compile_definitions(${target} PRIVATE KRRDISTILL_WITH_${isa}=1)
    endif()
  endforeach()
endfunction()
