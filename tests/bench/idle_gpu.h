/* idle_gpu.h: a GPU that does at once and for nothing what a pass asks of it, for measuring what the host does.
 * Linked around the calls of a pass of the CUDA on the CPU (CMakeLists.txt, --wrap); all other calls do what they
 * always do. */
#ifndef IDLE_GPU_H
#define IDLE_GPU_H

typedef struct idle_gpu_counts {
    int kernels;       /* launched one by one or captured */
    int graph_launches;
    int calls;         /* of those functions, kernels not counted */
    double started_us; /* when the latest graph was launched (idle_gpu_now_us) */
} idle_gpu_counts;

/* From now on nothing is copied, and no kernel runs. */
void idle_gpu_begin(void);
idle_gpu_counts idle_gpu_count(void);
double idle_gpu_now_us(void);

#endif
