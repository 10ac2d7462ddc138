# The stand-alone library: linked with the BLAS and LAPACK that CMake finds, installed as the CMake package `krrdistill`.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

set(BLA_SIZEOF_INTEGER 4)  # the interfaces of csrc/include/krrdistill/blas.h
find_package(LAPACK)
if(NOT LAPACK_FOUND)
  message(FATAL_ERROR "krrdistill: CMake found no BLAS and LAPACK with 32-bit integers. Install one (Debian: "
                      "apt-get install libopenblas-dev) or name one: -DBLA_VENDOR=..., -DCMAKE_PREFIX_PATH=...")
endif()
# linked_blas.cpp has the BLAS, csrc/library what owns its memory: distill() and the file.
target_sources(krrdistill_core PRIVATE
  csrc/common/linked_blas.cpp
  csrc/library/archive.cpp
  csrc/library/construct.cpp
  csrc/library/dense.cpp
  csrc/library/distill.cpp
  csrc/library/file.cpp
  csrc/library/json.cpp
  csrc/library/json_parser.cpp
  csrc/library/layers.cpp
  csrc/library/map.cpp
  csrc/library/map_file.cpp
  csrc/library/model.cpp
  csrc/library/npy.cpp
  csrc/library/random.cpp
  csrc/library/retrain.cpp
  csrc/library/sha256.cpp
  csrc/library/split.cpp
  csrc/library/train.cpp)
set_source_files_properties(csrc/library/distill.cpp PROPERTIES
  COMPILE_DEFINITIONS KRRDISTILL_VERSION="${PROJECT_VERSION}")
target_link_libraries(krrdistill_core PRIVATE LAPACK::LAPACK)

add_library(krrdistill::krrdistill ALIAS krrdistill_core)
set_target_properties(krrdistill_core PROPERTIES
  OUTPUT_NAME krrdistill
  EXPORT_NAME krrdistill
  INSTALL_RPATH_USE_LINK_PATH ON
  VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
  VERIFY_INTERFACE_HEADER_SETS ON)  # target all_verify_interface_header_sets: each header compiles alone

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/krrdistill)
install(TARGETS krrdistill_core EXPORT krrdistill-targets FILE_SET HEADERS)
install(EXPORT krrdistill-targets NAMESPACE krrdistill:: DESTINATION ${package_dir})
configure_package_config_file(cmake/krrdistill-config.cmake.in krrdistill-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(krrdistill-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/krrdistill-config.cmake ${PROJECT_BINARY_DIR}/krrdistill-config-version.cmake
        DESTINATION ${package_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
