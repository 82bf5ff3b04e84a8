/* suite.h: what the kernel conformance tests share. The suite runs once for every backend that this
 * machine can run; its tests find that backend in `suite_ops` and measure it against cpu_ref. */
#ifndef SUITE_H
#define SUITE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "ops.h"

extern const fr_ops *suite_ops;
extern const fr_ops *suite_device_ops; /* the same backend, whose memory may not be the host's (host_ops.h) */
#if FR_HAVE_X86
extern const fr_ops suite_avxvnni_evex; /* of these tests only; runs where cpu_avx512 does */
#endif

/* A small generator with a state of its own, so that every test has fixed data. */
typedef struct suite_random {
    uint64_t state;
} suite_random;

uint32_t suite_next(suite_random *r);
/* About normal, mean 0, standard deviation 1. */
float suite_normal(suite_random *r);
void suite_fill(suite_random *r, float *x, int64_t n);

void *suite_alloc(size_t bytes); /* zeroed; fails the test when there is none */
fr_device *suite_open(const fr_ops *ops, int threads);

/* A matrix of random blocks with sane scales. Free with suite_matrix_free. */
fr_matrix suite_matrix(suite_random *r, fr_dtype t, int64_t rows, int64_t cols);
void suite_matrix_free(fr_matrix *m);
/* Makes every byte of a quantised matrix `byte`, but for sane scales. */
void suite_set_codes(suite_random *r, fr_matrix *m, uint8_t byte);

/* Fails unless a[i] and b[i] differ by at most `tolerance` everywhere; names `what` and the place.
 * */
void suite_assert_close(const float *a, const float *b, int64_t n, float tolerance,
                        const char *what);
/* Fails unless the bytes are equal. */
void suite_assert_same(const float *a, const float *b, int64_t n, const char *what);

/* Every type, in the order of FR_DTYPE_MAP. */
extern const fr_dtype suite_types[];
extern const int suite_n_types;

/* Each runs its tests and returns the number that failed. */
int suite_run_dtype(void);    /* does not depend on the backend */
int suite_run_quantise(void); /* nor does this */
int suite_run_pool(void);     /* nor this */
int suite_run_matmul(void);
int suite_run_rows(void);
int suite_run_attention(void);
int suite_run_attention_long(void);
int suite_run_pass(void);
int suite_run_candidates(void);
int suite_run_memory(void);

#endif
