/* test_config.c: a model's shape as read from its file's metadata: numbers that no forward pass can
 * work with are refused, naming file and key. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "config.h"
#include "gguf_writer.h"

#define EPS "llama.attention.layer_norm_rms_epsilon"
#define BASE "llama.rope.freq_base"
#define FACTOR "llama.rope.scaling.factor"

enum { DIM = 32, N_VOCAB = 4 };

#define NAME "\u5b57\u5b57\u5b57\u5b57\u5b57\u5b57\u5b57\u5b57\u5b57\u5b57" /* 30 bytes */

/* A llama of one layer whose rotation is scaled linearly. */
static fr_buf model_of(float eps, float base, float factor)
{
    static const uint64_t embed[] = {DIM, N_VOCAB}, square[] = {DIM, DIM};
    const uint64_t embed_bytes = DIM * N_VOCAB * 4, square_bytes = DIM * DIM * 4;
    fr_buf b = {0};
    gguf_header(&b, 3, 3, 11);
    gguf_meta_str(&b, "general.architecture", "llama");
    gguf_meta_str(&b, "general.name", "b" NAME NAME NAME);
    gguf_meta_u32(&b, "llama.block_count", 1);
    gguf_meta_u32(&b, "llama.embedding_length", DIM);
    gguf_meta_u32(&b, "llama.attention.head_count", 2);
    gguf_meta_u32(&b, "llama.feed_forward_length", DIM);
    gguf_meta_u32(&b, "llama.context_length", 128);
    gguf_meta_f32(&b, EPS, eps);
    gguf_meta_f32(&b, BASE, base);
    gguf_meta_str(&b, "llama.rope.scaling.type", "linear");
    gguf_meta_f32(&b, FACTOR, factor);
    gguf_tensor(&b, "token_embd.weight", FR_F32, 2, embed, 0);
    gguf_tensor(&b, "blk.0.attn_output.weight", FR_F32, 2, square, embed_bytes);
    gguf_tensor(&b, "blk.0.ffn_down.weight", FR_F32, 2, square, embed_bytes + square_bytes);
    gguf_data(&b, 32, embed_bytes + 2 * square_bytes);
    return b;
}

static fr_status read_model(float eps, float base, float factor, fr_config *out)
{
    fr_buf b = model_of(eps, base, factor);
    fr_model_file *f = NULL;
    assert_int_equal(fr_model_file_from_memory(b.data, b.len, "x.gguf", &f), FR_OK);
    fr_status st = fr_config_read(f, out);
    fr_model_file_close(&f);
    fr_buf_free(&b);
    return st;
}

static void a_right_file_is_read(void **state)
{
    (void)state;
    fr_config c = {0};
    assert_int_equal(read_model(1e-6f, 5000, 4, &c), FR_OK);
    assert_true(c.eps == 1e-6f && c.rope_base == 5000 && c.rope_scale == 4);
    assert_int_equal(c.head_dim, DIM / 2);
    assert_int_equal(c.n_vocab, N_VOCAB);
    assert_string_equal(c.name, "b" NAME NAME); /* 63 bytes hold no more whole characters */
}

static void refuse(float eps, float base, float factor, const char *key)
{
    fr_config c = {0};
    fr_status st = read_model(eps, base, factor, &c);
    if (st != FR_EFORMAT || strncmp(fr_cause(), "x.gguf: ", 8) != 0 || !strstr(fr_cause(), key))
        fail_msg("status %d, cause \"%s\", want %d, naming %s", st, fr_cause(), FR_EFORMAT, key);
}

static void numbers_that_are_not_positive_are_refused(void **state)
{
    (void)state;
    const float bad[] = {0, -0.0f, -1e-6f, -1, NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        refuse(bad[i], 10000, 1, EPS);
        refuse(1e-5f, bad[i], 1, BASE);
        refuse(1e-5f, 10000, bad[i], FACTOR);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_right_file_is_read),
        cmocka_unit_test(numbers_that_are_not_positive_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
