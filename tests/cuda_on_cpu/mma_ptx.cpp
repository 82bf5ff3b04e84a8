/* mma_ptx.cpp: mma.sync of PTX with plain loops (PTX ISA, "Matrix fragments for mma.m16n8k16" and ".m16n8k32"). */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda_bf16.h"
#include "cuda_fp16.h"

/* What one lane brings. */
template <typename Sum> struct lane_registers {
    Sum *c;
    const unsigned *a, *b;
};

/* A type of operand: how many values a register holds, and what they are. */
struct bf16_pair {
    enum { VALUES = 2 };
    static float value(unsigned word, int i)
    {
        return __bfloat162float(__ushort_as_bfloat16(uint16_t(word >> 16 * i)));
    }
};
struct f16_pair {
    enum { VALUES = 2 };
    static float value(unsigned word, int i)
    {
        return __half2float(__ushort_as_half(uint16_t(word >> 16 * i)));
    }
};
struct four_bytes {
    enum { VALUES = 4 };
    static int value(unsigned word, int i)
    {
        return int8_t(word >> 8 * i);
    }
};

/* Lane 4 i + t holds words t of rows i and i + 8 of a and of token i of b, of the first and second half of k, and the
 * sums of tokens 2 t and 2 t + 1 of rows i and i + 8. */
template <typename Operand, typename Sum> static void multiply(void *const lanes[32], unsigned)
{
    constexpr int V = Operand::VALUES, K = 8 * V;
    Sum a[16][K], b[K][8], c[16][8];
    for (int lane = 0; lane < 32; lane++) {
        const lane_registers<Sum> *r = static_cast<const lane_registers<Sum> *>(lanes[lane]);
        const int i = lane / 4, t = lane % 4;
        for (int v = 0; v < V; v++)
            for (int half = 0; half < 2; half++) {
                const int k = (4 * half + t) * V + v;
                a[i][k] = Operand::value(r->a[2 * half], v);
                a[i + 8][k] = Operand::value(r->a[2 * half + 1], v);
                b[k][i] = Operand::value(r->b[half], v);
            }
        for (int s = 0; s < 4; s++)
            c[i + s / 2 * 8][2 * t + s % 2] = r->c[s];
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < K; k++)
            for (int token = 0; token < 8; token++)
                c[row][token] += a[row][k] * b[k][token];
    for (int lane = 0; lane < 32; lane++)
        for (int s = 0; s < 4; s++)
            static_cast<const lane_registers<Sum> *>(lanes[lane])->c[s] = c[lane / 4 + s / 2 * 8][lane % 4 * 2 + s % 2];
}

static void die_of(const char *instruction)
{
    fprintf(stderr, "cuda_on_cpu: there is no mma.sync.aligned.%s with such sums\n", instruction);
    abort();
}

void fake_cuda_mma(const char *instruction, float c[4], const unsigned a[4], const unsigned b[2])
{
    lane_registers<float> registers = {c, a, b};
    if (strcmp(instruction, "m16n8k16.row.col.f32.bf16.bf16.f32") == 0)
        return fake_cuda_warp(~0u, multiply<bf16_pair, float>, &registers);
    if (strcmp(instruction, "m16n8k16.row.col.f32.f16.f16.f32") == 0)
        return fake_cuda_warp(~0u, multiply<f16_pair, float>, &registers);
    die_of(instruction);
}

void fake_cuda_mma(const char *instruction, int c[4], const unsigned a[4], const unsigned b[2])
{
    lane_registers<int> registers = {c, a, b};
    if (strcmp(instruction, "m16n8k32.row.col.s32.s8.s8.s32") == 0)
        return fake_cuda_warp(~0u, multiply<four_bytes, int>, &registers);
    die_of(instruction);
}
