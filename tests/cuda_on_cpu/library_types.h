/* library_types.h: the types of matrices, by CUDA's numbers. */
#ifndef FAKE_CUDA_LIBRARY_TYPES_H
#define FAKE_CUDA_LIBRARY_TYPES_H

typedef enum cudaDataType_t { CUDA_R_32F = 0, CUDA_R_16F = 2, CUDA_R_16BF = 14 } cudaDataType;
#ifndef __cplusplus
typedef enum cudaDataType_t cudaDataType_t;
#endif

#endif
