# What the GPU backend is made of: for nvcc, and for the test-only CUDA of tests/cuda_on_cpu.
set(FR_CUDA_C attention_plan.c command_list.c cublas_lt.c cuda_error.c cuda_ops.c device.c gpu.c graphs.c
    matmul_plan.c meetings.c queue.c weight.c)
set(FR_CUDA_CU attention.cu candidates.cu matmul_acts.cu matmul_codes.cu matmul_plain.cu matmul_super.cu matmul_wide.cu
    matmul_x.cu measure.cu rows.cu rows_acts.cu)
list(TRANSFORM FR_CUDA_C PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
list(TRANSFORM FR_CUDA_CU PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
