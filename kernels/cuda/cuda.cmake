# cuda.cmake: CUDA as a language of this build, as FORERUN_CUDA wants it. Sets FR_HAVE_CUDA and FR_HAVE_NCCL, and for
# those who use them fr_cuda_headers (cudart and cuBLASLt) and fr_nccl_headers. FORERUN_NVCC names another nvcc than PATH's.
#
# cuBLASLt and NCCL are 0.9 GB of libraries, and loading them takes 60 ms and 200 MB of every process. So nothing is linked
# with them: they are opened when first needed (cuda/cublas_lt_late.c, comm_nccl_late.c), and a program starts where they,
# or a GPU, are missing. cudart is linked statically.

# What AUTO goes on without, with a word of this weight (STATUS, WARNING), and ON does not.
macro(without_cuda weight why)
    if(FORERUN_CUDA STREQUAL "ON")
        message(FATAL_ERROR "FORERUN_CUDA is ON, but ${why}")
    endif()
    message(${weight} "Built without the GPU backend: ${why}")
    return()
endmacro()

if(FORERUN_CUDA STREQUAL "OFF")
    return()
endif()
if(FORERUN_SANITIZE)
    without_cuda(STATUS "the driver maps memory where the sanitizers have theirs")
endif()
find_program(FORERUN_NVCC nvcc HINTS ENV CUDA_PATH ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT FORERUN_NVCC)
    without_cuda(STATUS "nvcc was not found; FORERUN_NVCC can name it")
endif()
# An nvcc that is too old (Hopper's instructions and the graphs of early starts came with 12), or that refuses this host
# compiler, is none.
set(probe ${CMAKE_BINARY_DIR}/CMakeFiles/probe)
file(WRITE ${probe}.cu "#include <cublasLt.h>
#if __CUDACC_VER_MAJOR__ < 12
#error CUDA 12 or later is needed
#endif
__global__ void probe() {}
")
execute_process(COMMAND ${FORERUN_NVCC} -std=c++17 -arch=sm_90 -c -o ${probe}.o ${probe}.cu
    RESULT_VARIABLE failed OUTPUT_VARIABLE told ERROR_VARIABLE told)
if(failed)
    # The result is an exit code, or why nothing ran; then nothing was told.
    if(NOT told)
        set(told ${failed})
    endif()
    without_cuda(WARNING "${FORERUN_NVCC} does not compile a kernel for sm_90 with cublasLt.h: ${told}")
endif()

set(CMAKE_CUDA_COMPILER ${FORERUN_NVCC})
set(CMAKE_CUDA_ARCHITECTURES "80-real;90") # Ampere and Hopper; later ones through the driver's compiler
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
# As C files are compiled: a fused multiply-add is one only where a kernel writes fmaf.
add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-O3;-fmad=false;-lineinfo;-Xcompiler=-Wall,-Wextra,-ffp-contract=off>")
if(FORERUN_WERROR)
    add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:-Werror=all-warnings;-Xcompiler=-Werror>")
endif()
add_library(fr_cuda_headers INTERFACE)
target_include_directories(fr_cuda_headers SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
target_link_libraries(fr_cuda_headers INTERFACE CUDA::cudart_static)
set(FR_HAVE_CUDA 1)

find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
if(NCCL_INCLUDE_DIR)
    add_library(fr_nccl_headers INTERFACE)
    target_include_directories(fr_nccl_headers SYSTEM INTERFACE ${NCCL_INCLUDE_DIR})
    target_link_libraries(fr_nccl_headers INTERFACE fr_cuda_headers)
    set(FR_HAVE_NCCL 1)
endif()

# Where programs look for both first; LD_LIBRARY_PATH and the system's folders are the others.
list(APPEND CMAKE_BUILD_RPATH ${CUDAToolkit_LIBRARY_DIR})
list(APPEND CMAKE_INSTALL_RPATH ${CUDAToolkit_LIBRARY_DIR})
message(STATUS "GPU backend: CUDA ${CMAKE_CUDA_COMPILER_VERSION} of ${CUDAToolkit_BIN_DIR}, NCCL: ${NCCL_INCLUDE_DIR}")
