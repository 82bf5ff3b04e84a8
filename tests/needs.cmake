# needs.cmake: finds what the tests need beyond the programs, as FORERUN_TESTS wants it. Sets FR_HAVE_TESTS, and for
# tests/CMakeLists.txt PkgConfig::cmocka and which C++ compiler goes with the C one. After the project and PkgConfig.

# What AUTO goes on without, and ON does not.
macro(without_tests why)
    if(FORERUN_TESTS STREQUAL "ON")
        message(FATAL_ERROR "FORERUN_TESTS is ON, but ${why} (deploy/deps --tests installs it)")
    endif()
    message(STATUS "Built without tests: ${why} (deploy/deps --tests installs it)")
    return()
endmacro()

if(FORERUN_TESTS STREQUAL "OFF")
    return()
endif()
pkg_check_modules(cmocka QUIET IMPORTED_TARGET cmocka)
if(NOT cmocka_FOUND)
    without_tests("cmocka was not found")
endif()
# Only tests are C++: the CUDA files, as tests/cuda_on_cpu compiles them. By the same compiler as C.
if(NOT DEFINED CMAKE_CXX_COMPILER AND NOT DEFINED ENV{CXX} AND CMAKE_C_COMPILER MATCHES "(clang|gcc)[^/]*$|/cc$")
    string(REGEX REPLACE "clang([^/]*)$" "clang++\\1" CMAKE_CXX_COMPILER ${CMAKE_C_COMPILER})
    string(REGEX REPLACE "gcc([^/]*)$" "g++\\1" CMAKE_CXX_COMPILER ${CMAKE_CXX_COMPILER})
    string(REGEX REPLACE "/cc$" "/c++" CMAKE_CXX_COMPILER ${CMAKE_CXX_COMPILER})
    if(NOT EXISTS ${CMAKE_CXX_COMPILER})
        without_tests("there is no C++ compiler ${CMAKE_CXX_COMPILER}")
    endif()
endif()
set(FR_HAVE_TESTS 1)
