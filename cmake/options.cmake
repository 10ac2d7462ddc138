# Build options, warnings, sanitizers.
option(KRRDISTILL_WERROR "Treat compiler warnings as errors" OFF)
set(KRRDISTILL_SANITIZE "" CACHE STRING "Sanitizers, comma separated, e.g. address,undefined")
option(KRRDISTILL_HARDEN "Optimised builds check the stack and libc's copies, and map no writable jump table" ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_package(OpenMP COMPONENTS CXX)
if(NOT OpenMP_CXX_FOUND)
  message(WARNING "OpenMP not found: the element-wise loops of krrdistill will use one thread")
endif()

# Listed flags, never -ffast-math: no errno from libm, no trapping FP; results stay IEEE.
function(krrdistill_target_options target)
  set(flags -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -fno-math-errno -fno-trapping-math
            $<$<BOOL:${KRRDISTILL_WERROR}>:-Werror>)
  target_compile_options(${target} PRIVATE "$<$<COMPILE_LANGUAGE:CXX>:${flags}>")
  if(KRRDISTILL_HARDEN AND NOT KRRDISTILL_SANITIZE AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
    # libc checks copies only in optimised code, and says so otherwise; distributions define the macro, too.
    target_compile_options(${target} PRIVATE
      "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<NOT:$<CONFIG:Debug,>>>:-fstack-protector-strong;-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>")
    target_link_options(${target} PRIVATE -Wl,-z,relro,-z,now)
  endif()
  if(KRRDISTILL_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${KRRDISTILL_SANITIZE} -fno-omit-frame-pointer
                                             -fno-sanitize-recover=undefined -g1)  # lines for reports
    target_link_options(${target} PRIVATE -fsanitize=${KRRDISTILL_SANITIZE})
    if(KRRDISTILL_SANITIZE MATCHES "address")
      target_compile_definitions(${target} PRIVATE KRRDISTILL_SANITIZED=1)
    endif()
  endif()
endfunction()
