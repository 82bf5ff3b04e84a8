/* test_model_file.c: the GGUF reader against right files, wrong files and damaged ones. Every
 * damaged copy lies in a heap block of exactly its size, so that a sanitizer or valgrind sees any
 * read beyond it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "fault_alloc.h"
#include "gguf_writer.h"
#include "model_file.h"

static const uint64_t dims_2d[] = {32, 3};

/* A file with every value type, arrays of each, and two tensors. */
static fr_buf small_file(void)
{
    static const struct {
        fr_meta_type type;
        const char *key, *raw;
        size_t n;
    } values[] = {
        {FR_META_U8, "v.u8", "\xff", 1},
        {FR_META_I8, "v.i8", "\xff", 1},
        {FR_META_U16, "v.u16", "\xff\xff", 2},
        {FR_META_I16, "v.i16", "\xfe\xff", 2},
        {FR_META_U32, "v.u32", "\xff\xff\xff\xff", 4},
        {FR_META_I32, "v.i32", "\xfd\xff\xff\xff", 4},
        {FR_META_F32, "v.f32", "\x00\x00\xc0\x3f", 4},
        {FR_META_BOOL, "v.bool", "\x01", 1},
        {FR_META_U64, "v.u64", "\x05\0\0\0\0\0\0\0", 8},
        {FR_META_I64, "v.i64", "\xff\xff\xff\xff\xff\xff\xff\xff", 8},
        {FR_META_F64, "v.f64", "\0\0\0\0\0\0\x04\xc0", 8},
    };
    enum { N = sizeof values / sizeof *values };
    fr_buf b = {0};
    gguf_header(&b, 3, 2, 2 * N + 3);
    gguf_meta_str(&b, "general.architecture", "llama");
    for (int i = 0; i < N; i++) {
        char key[32];
        gguf_key(&b, values[i].key, values[i].type);
        gguf_bytes(&b, values[i].raw, values[i].n);
        snprintf(key, sizeof key, "a.%s", values[i].key + 2);
        gguf_array(&b, key, values[i].type, 3);
        for (int k = 0; k < 3; k++)
            gguf_bytes(&b, values[i].raw, values[i].n);
    }
    gguf_array(&b, "a.str", FR_META_STR, 2);
    gguf_str(&b, "one");
    gguf_str(&b, "");
    gguf_array(&b, "a.none", FR_META_U32, 0);
    gguf_tensor(&b, "token_embd.weight", FR_Q8_0, 2, dims_2d, 0); /* 3 rows of 34 bytes */
    gguf_tensor(&b, "output_norm.weight", FR_F32, 1, dims_2d, 128);
    gguf_data(&b, 32, 128 + 32 * 4);
    return b;
}

static fr_status open_copy(const void *data, size_t n, fr_model_file **out, void **copy_out)
{
    void *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, data, n);
    *copy_out = copy;
    return fr_model_file_from_memory(copy, n, "x.gguf", out);
}

/* Reads everything an opened file offers. */
static double touch_all(const fr_model_file *f)
{
    double sum = 0;
    for (size_t i = 0; i < fr_model_file_n_meta(f); i++) {
        const fr_meta *m = fr_model_file_meta_at(f, i);
        char key[64];
        snprintf(key, sizeof key, "%.*s", (int)(m->key.len < 63 ? m->key.len : 63), m->key.data);
        fr_str_iter it;
        fr_str s;
        if (m->element_type != FR_META_STR) {
            for (uint64_t k = 0; k < m->n_elements; k++)
                sum += fr_meta_element(m, k);
        } else if (fr_meta_str_array(f, key, &it) == FR_OK) {
            while (fr_str_next(&it, &s))
                sum += s.len ? s.data[s.len - 1] : 0;
        } else if (fr_meta_str(f, key, &s) == FR_OK) {
            sum += s.len ? s.data[s.len - 1] : 0;
        }
    }
    for (size_t i = 0; i < fr_model_file_n_tensors(f); i++) {
        const fr_tensor *t = fr_model_file_tensor_at(f, i);
        for (size_t k = 0; k < t->bytes; k++)
            sum += ((const uint8_t *)t->data)[k];
    }
    return sum + (double)fr_model_file_digest(f);
}

/* Opens b, which must fail with `want` and a one-line cause that names the file and contains
 * `cause`; frees b. */
static void refuse(fr_buf *b, fr_status want, const char *cause)
{
    fr_model_file *f = NULL;
    void *copy;
    fr_status st = open_copy(b->data, b->len, &f, &copy);
    if (st != want || !strstr(fr_cause(), cause) || strncmp(fr_cause(), "x.gguf: ", 8) ||
        strchr(fr_cause(), '\n'))
        fail_msg("status %d, cause \"%s\", want %d, \"%s\"", st, fr_cause(), want, cause);
    assert_null(f);
    free(copy);
    fr_buf_free(b);
}

static void test_small_file(void **state)
{
    (void)state;
    fr_buf b = small_file();
    fr_model_file *f = NULL;
    void *copy;
    assert_int_equal(open_copy(b.data, b.len, &f, &copy), FR_OK);
    assert_string_equal(fr_model_file_name(f), "x.gguf");
    assert_int_equal(fr_model_file_size(f), b.len);
    assert_int_equal(fr_model_file_n_tensors(f), 2);
    const fr_tensor *t = fr_model_file_tensor(f, "token_embd.weight");
    assert_non_null(t);
    assert_int_equal(t->dtype, FR_Q8_0);
    assert_int_equal(t->n_dims, 2);
    assert_true(t->dims[0] == 32 && t->dims[1] == 3 && t->dims[2] == 1 && t->dims[3] == 1);
    assert_int_equal(t->bytes, 3 * 34);
    assert_int_equal(((const uint8_t *)t->data)[0], 3);
    const fr_tensor *norm = fr_model_file_tensor(f, "output_norm.weight");
    assert_true((const uint8_t *)norm->data == (const uint8_t *)t->data + 128);
    assert_null(fr_model_file_tensor(f, "output_norm.weigh"));
    assert_null(fr_model_file_tensor_at(f, 2));
    assert_null(fr_model_file_meta(f, "nothing"));
    fr_model_file_drop(f, t->data, t->bytes); /* no mapping: nothing happens */
    fr_model_file_close(&f);
    assert_null(f);
    fr_model_file_close(&f);
    fr_model_file_close(NULL);
    free(copy);
    fr_buf_free(&b);
}

static void test_values(void **state)
{
    (void)state;
    fr_buf b = small_file();
    fr_model_file *f = NULL;
    assert_int_equal(fr_model_file_from_memory(b.data, b.len, "x.gguf", &f), FR_OK);
    static const struct {
        const char *key;
        fr_status st;
        uint32_t v;
    } whole[] = {
        {"v.u8", FR_OK, 255},     {"v.i8", FR_EFORMAT, 0},   {"v.u16", FR_OK, 65535},
        {"v.i16", FR_EFORMAT, 0}, {"v.u32", FR_OK, ~0u},     {"v.i32", FR_EFORMAT, 0},
        {"v.f32", FR_EFORMAT, 0}, {"v.bool", FR_EFORMAT, 0}, {"v.u64", FR_OK, 5},
        {"v.i64", FR_EFORMAT, 0}, {"a.u8", FR_EFORMAT, 0},   {"none", FR_ENOTFOUND, 0},
    };
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        uint32_t v = 0;
        assert_int_equal(fr_meta_u32(f, whole[i].key, &v), whole[i].st);
        assert_int_equal(v, whole[i].v);
    }
    float v = 0;
    int flag = 0;
    fr_str s = {0};
    assert_int_equal(fr_meta_f32(f, "v.f32", &v), FR_OK);
    assert_true(v == 1.5f);
    assert_int_equal(fr_meta_f32(f, "v.f64", &v), FR_OK);
    assert_true(v == -2.5f);
    assert_int_equal(fr_meta_f32(f, "v.u32", &v), FR_EFORMAT);
    assert_int_equal(fr_meta_bool(f, "v.bool", &flag), FR_OK);
    assert_int_equal(flag, 1);
    assert_int_equal(fr_meta_bool(f, "v.u8", &flag), FR_EFORMAT);
    assert_int_equal(fr_meta_str(f, "general.architecture", &s), FR_OK);
    assert_true(fr_str_equal(s, (fr_str){"llama", 5}));
    assert_int_equal(fr_meta_str(f, "v.u8", &s), FR_EFORMAT);
    assert_string_equal(fr_cause(), "x.gguf: metadata v.u8 is no string");
    fr_model_file_close(&f);
    fr_buf_free(&b);
}

static void test_arrays(void **state)
{
    (void)state;
    fr_buf b = small_file();
    fr_model_file *f = NULL;
    assert_int_equal(fr_model_file_from_memory(b.data, b.len, "x.gguf", &f), FR_OK);
    static const struct {
        const char *key;
        double v;
    } want[] = {
        {"a.u8", 255},   {"a.i8", -1},   {"a.u16", 65535}, {"a.i16", -2}, {"a.u32", 4294967295.0},
        {"a.i32", -3},   {"a.f32", 1.5}, {"a.bool", 1},    {"a.u64", 5},  {"a.i64", -1},
        {"a.f64", -2.5},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const fr_meta *m = fr_model_file_meta(f, want[i].key);
        assert_non_null(m);
        assert_int_equal(m->type, FR_META_ARRAY);
        assert_int_equal(m->n_elements, 3);
        assert_true(fr_meta_element(m, 2) == want[i].v);
        assert_true(fr_meta_element(m, 3) == 0);
    }
    fr_str_iter it;
    fr_str s;
    assert_int_equal(fr_meta_str_array(f, "a.str", &it), FR_OK);
    assert_int_equal(fr_str_next(&it, &s), 1);
    assert_true(fr_str_equal(s, (fr_str){"one", 3}));
    assert_int_equal(fr_str_next(&it, &s), 1);
    assert_int_equal(s.len, 0);
    assert_int_equal(fr_str_next(&it, &s), 0);
    assert_int_equal(fr_meta_str_array(f, "a.u8", &it), FR_EFORMAT);
    assert_int_equal(fr_meta_str_array(f, "b", &it), FR_ENOTFOUND);
    assert_int_equal(fr_model_file_meta(f, "a.none")->n_elements, 0);
    fr_model_file_close(&f);
    fr_buf_free(&b);
}

/* --- damage --- */

static void test_every_truncation(void **state)
{
    (void)state;
    fr_buf b = small_file();
    for (size_t n = 0; n < b.len; n++) {
        fr_model_file *f = NULL;
        void *copy;
        fr_status st = open_copy(b.data, n, &f, &copy);
        if (st != FR_EFORMAT)
            fail_msg("cut at %zu of %zu: status %d", n, b.len, st);
        assert_null(f);
        free(copy);
    }
    fr_buf_free(&b);
}

static void test_every_bit_flip(void **state)
{
    (void)state;
    fr_buf b = small_file();
    double sum = 0;
    size_t opened = 0;
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        fr_model_file *f = NULL;
        void *copy;
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        if (open_copy(b.data, b.len, &f, &copy) == FR_OK) {
            opened++;
            sum += touch_all(f);
        }
        fr_model_file_close(&f);
        free(copy);
        b.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(opened > 0 && sum != 0); /* flips in names and data open */
    fr_buf_free(&b);
}

static void test_digest(void **state)
{
    (void)state;
    fr_buf b = small_file();
    fr_model_file *f = NULL;
    assert_int_equal(fr_model_file_from_memory(b.data, b.len, "x.gguf", &f), FR_OK);
    uint64_t digest = fr_model_file_digest(f);
    b.data[b.len - 1] ^= 1; /* the last weight */
    assert_true(fr_model_file_digest(f) != digest);
    b.data[b.len - 1] ^= 1;
    assert_true(fr_model_file_digest(f) == digest);
    fr_model_file_close(&f);
    fr_buf_free(&b);
}

/* --- wrong files --- */

static void test_header(void **state)
{
    (void)state;
    fr_buf b = {0};
    gguf_bytes(&b, "GGML\3\0\0\0", 8);
    refuse(&b, FR_EFORMAT, "not a GGUF file");
    gguf_header(&b, 1, 0, 0);
    refuse(&b, FR_EUNSUPPORTED, "version 1");
    gguf_header(&b, 4, 0, 0);
    refuse(&b, FR_EUNSUPPORTED, "version 4");
    gguf_header(&b, 0x03000000, 0, 0);
    refuse(&b, FR_EUNSUPPORTED, "big-endian");
    for (uint32_t version = 2; version <= 3; version++) {
        fr_model_file *f = NULL;
        gguf_header(&b, version, 0, 0);
        assert_int_equal(fr_model_file_from_memory(b.data, b.len, "x", &f), FR_OK);
        assert_int_equal(fr_model_file_n_meta(f) + fr_model_file_n_tensors(f), 0);
        fr_model_file_close(&f);
        fr_buf_free(&b);
    }
}

static void test_lies_about_counts(void **state)
{
    (void)state;
    static const uint64_t lies[] = {1, 1000, 1ull << 32, 1ull << 60, UINT64_MAX};
    fr_buf b = {0};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        gguf_header(&b, 3, lies[i], 0);
        refuse(&b, FR_EFORMAT, "tensors do not fit");
        gguf_header(&b, 3, 0, lies[i]);
        refuse(&b, FR_EFORMAT, "metadata entries do not fit");
        gguf_header(&b, 3, 0, 1);
        gguf_array(&b, "a", FR_META_U64, lies[i]);
        refuse(&b, FR_EFORMAT, "metadata a: ");
        gguf_header(&b, 3, 0, 1);
        gguf_array(&b, "a", FR_META_STR, lies[i]);
        refuse(&b, FR_EFORMAT, "metadata a: ");
        gguf_header(&b, 3, 0, 1);
        gguf_key(&b, "s", FR_META_STR);
        gguf_u64(&b, lies[i]);
        refuse(&b, FR_EFORMAT, "metadata s: needs");
        gguf_header(&b, 3, 0, 1);
        gguf_u64(&b, lies[i] | 64);
        gguf_u64(&b, 0);
        refuse(&b, FR_EFORMAT, "metadata 0: needs");
    }
}

static void test_bad_metadata(void **state)
{
    (void)state;
    fr_buf b = {0};
    gguf_header(&b, 3, 0, 1);
    gguf_key(&b, "a\nb", 13);
    gguf_u64(&b, 0);
    refuse(&b, FR_EFORMAT, "metadata a?b: unknown value type 13");
    gguf_header(&b, 3, 0, 1);
    gguf_array(&b, "a", FR_META_ARRAY, 1);
    gguf_u64(&b, 0);
    refuse(&b, FR_EUNSUPPORTED, "metadata a: arrays of arrays");
    gguf_header(&b, 3, 0, 2);
    gguf_meta_u32(&b, "twice", 1);
    gguf_meta_str(&b, "twice", "2");
    refuse(&b, FR_EFORMAT, "metadata twice: the key appears twice");
    static const uint32_t alignments[] = {0, 1, 4, 33, 48};
    for (size_t i = 0; i < sizeof alignments / sizeof *alignments; i++) {
        gguf_header(&b, 3, 0, 1);
        gguf_meta_u32(&b, "general.alignment", alignments[i]);
        refuse(&b, FR_EFORMAT, "general.alignment is ");
    }
    gguf_header(&b, 3, 0, 1);
    gguf_meta_str(&b, "general.alignment", "32");
    refuse(&b, FR_EFORMAT, "general.alignment is no integer");
}

/* One tensor with this type, these dimensions and this offset, and 4096 bytes of data. */
static void refuse_tensor(uint32_t type, int n_dims, const uint64_t *dims, uint64_t offset,
                          fr_status want, const char *cause)
{
    fr_buf b = {0};
    gguf_header(&b, 3, 1, 0);
    gguf_tensor(&b, "blk.3.ffn_up.weight", type, n_dims, dims, offset);
    gguf_data(&b, 32, 4096);
    refuse(&b, want, cause);
}

static void test_bad_tensors(void **state)
{
    (void)state;
    static const uint64_t fits[] = {32, 32, 1, 1, 1}, none[] = {32, 0}, huge[] = {1ull << 63},
                          wide[] = {1ull << 62, 4}, blocks[] = {1ull << 61, 3}, odd[] = {33, 2},
                          long_[] = {32, 33};
    refuse_tensor(FR_F32, 0, fits, 0, FR_EFORMAT, "tensor blk.3.ffn_up.weight: 0 dimensions");
    refuse_tensor(FR_F32, 5, fits, 0, FR_EFORMAT, "5 dimensions");
    refuse_tensor(FR_F32, 2, none, 0, FR_EFORMAT, "dimension 1 is 0");
    refuse_tensor(FR_F32, 1, huge, 0, FR_EFORMAT, "dimension 0 is 9223372036854775808");
    refuse_tensor(FR_F32, 2, wide, 0, FR_EFORMAT, "dimension 1 is 4");
    refuse_tensor(FR_F32, 2, blocks, 0, FR_EFORMAT, "too large");
    refuse_tensor(FR_Q8_0, 2, odd, 0, FR_EFORMAT, "rows of 33 values are no whole blocks of Q8_0");
    refuse_tensor(16, 2, fits, 0, FR_EUNSUPPORTED, "tensor blk.3.ffn_up.weight: tensor type 16");
    refuse_tensor(0xffffffff, 2, fits, 0, FR_EUNSUPPORTED, "tensor type 4294967295");
    refuse_tensor(FR_F32, 2, fits, 16, FR_EFORMAT, "offset 16 is no multiple of 32");
    refuse_tensor(FR_F32, 2, fits, 32, FR_EFORMAT,
                  "data ends at byte 4224, the file has 4192 (truncated?)");
    refuse_tensor(FR_F32, 2, fits, 1ull << 40, FR_EFORMAT, "data ends at byte");
    refuse_tensor(FR_F32, 2, fits, UINT64_MAX - 31, FR_EFORMAT, "is too large");
    refuse_tensor(FR_F32, 2, long_, 0, FR_EFORMAT, "data ends at byte");
    fr_buf b = {0};
    gguf_header(&b, 3, 2, 0);
    gguf_tensor(&b, "same", FR_F32, 1, fits, 0);
    gguf_tensor(&b, "same", FR_F32, 1, fits, 0);
    gguf_data(&b, 32, 4096);
    refuse(&b, FR_EFORMAT, "tensor same: appears twice");
}

static void test_alignment(void **state)
{
    (void)state;
    fr_buf b = {0};
    gguf_header(&b, 2, 1, 1);
    gguf_meta_u32(&b, "general.alignment", 256);
    gguf_tensor(&b, "t", FR_F32, 1, dims_2d, 256);
    gguf_data(&b, 256, 256 + 128);
    fr_model_file *f = NULL;
    assert_int_equal(fr_model_file_from_memory(b.data, b.len, "x", &f), FR_OK);
    assert_true((const uint8_t *)fr_model_file_tensor(f, "t")->data == b.data + 512);
    fr_model_file_close(&f);
    fr_buf_free(&b);
}

/* --- files on disk --- */

static void test_paths(void **state)
{
    (void)state;
    char path[] = "/tmp/forerun-test-XXXXXX";
    fr_model_file *f = NULL;
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(fr_model_file_open(path, &f), FR_EFORMAT);
    assert_non_null(strstr(fr_cause(), "the file is empty"));
    fr_buf b = small_file();
    assert_true(write(fd, b.data, b.len) == (ssize_t)b.len);
    close(fd);
    assert_int_equal(fr_model_file_open(path, &f), FR_OK);
    const fr_tensor *t = fr_model_file_tensor(f, "token_embd.weight");
    double sum = touch_all(f);
    fr_model_file_drop(f, t->data, t->bytes); /* less than a page: nothing to drop */
    fr_model_file_drop(f, b.data, b.len);     /* elsewhere */
    assert_true(touch_all(f) == sum);
    fr_model_file_close(&f);
    unlink(path);
    assert_int_equal(fr_model_file_open(path, &f), FR_ENOTFOUND);
    assert_non_null(strstr(fr_cause(), "No such file"));
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(fr_model_file_open(path, &f), FR_EINVAL); /* and does not block */
    unlink(path);
    assert_int_equal(fr_model_file_open("/tmp", &f), FR_EINVAL);
    assert_int_equal(fr_model_file_open("/etc/hostname/x", &f), FR_EIO);
    assert_null(f);
    fr_buf_free(&b);
}

static void test_drop(void **state)
{
    (void)state;
    const char *path = FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-draft.gguf";
    fr_model_file *f = NULL;
    assert_int_equal(fr_model_file_open(path, &f), FR_OK);
    double sum = touch_all(f);
    for (size_t i = 0; i < fr_model_file_n_tensors(f); i++) {
        const fr_tensor *t = fr_model_file_tensor_at(f, i);
        fr_model_file_drop(f, t->data, t->bytes);
    }
    assert_true(touch_all(f) == sum); /* read again from the file */
    fr_model_file_close(&f);
}

static void test_no_memory(void **state)
{
    (void)state;
    const char *path = FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-draft.gguf";
    long n = 0;
    for (;; n++) {
        fr_model_file *f = NULL;
        fr_fault_alloc_arm(n);
        fr_status st = fr_model_file_open(path, &f);
        if (!fr_fault_alloc_disarm()) {
            assert_int_equal(st, FR_OK);
            fr_model_file_close(&f);
            break;
        }
        assert_int_equal(st, FR_ENOMEM);
        assert_null(f);
    }
    assert_true(n >= 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small_file),     cmocka_unit_test(test_values),
        cmocka_unit_test(test_arrays),         cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_every_bit_flip), cmocka_unit_test(test_digest),
        cmocka_unit_test(test_header),         cmocka_unit_test(test_lies_about_counts),
        cmocka_unit_test(test_bad_metadata),   cmocka_unit_test(test_bad_tensors),
        cmocka_unit_test(test_alignment),      cmocka_unit_test(test_paths),
        cmocka_unit_test(test_drop),           cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
