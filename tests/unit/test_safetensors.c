/* test_safetensors.c: the header of a safetensors file: right ones, ones that lie, and damaged ones.
 * Every file lies in a heap block of exactly its size, so that a sanitizer or valgrind sees any read
 * beyond it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "buf.h"
#include "safetensors.h"

static const char two[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                          "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[16,28]},"
                          "\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}   ";

/* A file with this header and n bytes of data, whose byte i is i; the caller's to free. */
static uint8_t *file_of(const char *header, size_t n, size_t *size_out)
{
    fr_buf b = {0};
    assert_int_equal(fr_buf_put_u64(&b, strlen(header)), FR_OK);
    assert_int_equal(fr_buf_put(&b, header, strlen(header)), FR_OK);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(fr_buf_put(&b, &(uint8_t){(uint8_t)i}, 1), FR_OK);
    uint8_t *exact = malloc(b.len);
    assert_non_null(exact);
    memcpy(exact, b.data, b.len);
    *size_out = b.len;
    fr_buf_free(&b);
    return exact;
}

static void refuse_bytes(const uint8_t *data, size_t n, fr_status want, const char *cause)
{
    fr_safetensors s = {0};
    fr_status st = fr_safetensors_parse("x.safetensors", data, n, &s);
    if (st != want || !strstr(fr_cause(), cause) || strncmp(fr_cause(), "x.safetensors: ", 15) ||
        strchr(fr_cause(), '\n'))
        fail_msg("status %d, cause \"%s\", want %d, \"%s\"", st, fr_cause(), want, cause);
    assert_null(s.tensors);
}

static void refuse(const char *header, size_t n, fr_status want, const char *cause)
{
    size_t size = 0;
    uint8_t *file = file_of(header, n, &size);
    refuse_bytes(file, size, want, cause);
    free(file);
}

static void test_two(void **state)
{
    (void)state;
    size_t size = 0;
    uint8_t *file = file_of(two, 28, &size);
    fr_safetensors s = {0};
    if (fr_safetensors_parse("x", file, size, &s) != FR_OK)
        fail_msg("%s", fr_cause());
    assert_int_equal(s.n, 2);
    const fr_safetensor *a = fr_safetensors_find(&s, (fr_str){"a", 1});
    const fr_safetensor *b = fr_safetensors_find(&s, (fr_str){"b", 1});
    assert_null(fr_safetensors_find(&s, (fr_str){"c", 1}));
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(a->dtype, FR_F32);
    assert_int_equal(a->n_dims, 1);
    assert_int_equal(a->dims[0], 4);
    assert_int_equal(a->bytes, 16);
    assert_int_equal(a->data[0], 0);
    assert_int_equal(b->dtype, FR_BF16);
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->dims[0], 2);
    assert_int_equal(b->dims[1], 3);
    assert_int_equal(b->dims[2], 1);
    assert_int_equal(b->data[0], 16);
    fr_safetensors_free(&s);
    free(file);
}

/* No tensors; one value; none at all; a type that is known but not read. */
static void test_odd_but_right(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n;
    } right[] = {
        {"{}", 0},
        {"{\"s\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[0,2]}}", 2},
        {"{\"e\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[2,2]},"
         "\"s\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}}",
         2},
        {"{\"s\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],\"data_offsets\":[0,3]}}", 3},
    };
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        size_t size = 0;
        uint8_t *file = file_of(right[i].header, right[i].n, &size);
        fr_safetensors s = {0};
        if (fr_safetensors_parse("x", file, size, &s) != FR_OK)
            fail_msg("%s: %s", right[i].header, fr_cause());
        fr_safetensors_free(&s);
        free(file);
    }
}

static void test_not_safetensors(void **state)
{
    (void)state;
    static const uint8_t huge[] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, '{', '}'};
    static const uint8_t late[] = {64, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    refuse_bytes((const uint8_t *)"GGUF", 4, FR_EFORMAT, "not a safetensors file");
    refuse_bytes((const uint8_t *)"GGUF\3\0\0\0\0\0\0\0", 12, FR_EFORMAT, "not a safetensors file");
    refuse_bytes(huge, sizeof huge, FR_EFORMAT, "not a safetensors file");
    refuse_bytes(late, sizeof late, FR_EFORMAT,
                 "the header has 64 bytes, the file 10 (truncated?)");
    refuse("{\"a\":", 0, FR_EFORMAT, "the header is no JSON object (at byte ");
    refuse("{} []", 0, FR_EFORMAT, "the header is no JSON object (at byte 3 of it)");
    refuse("{\"a\":7}", 0, FR_EFORMAT, "tensor a: is described by no object");
}

/* The header "t" with these fields. */
static void refuse_tensor(const char *fields, size_t n, fr_status want, const char *cause)
{
    char header[512], full[256];
    snprintf(header, sizeof header, "{\"t\":{%s}}", fields);
    snprintf(full, sizeof full, "tensor t: %s", cause);
    refuse(header, n, want, full);
}

static void test_bad_fields(void **state)
{
    (void)state;
    refuse_tensor("\"shape\":[1],\"data_offsets\":[0,4]", 4, FR_EFORMAT, "has no dtype");
    refuse_tensor("\"dtype\":\"F4\\n\",\"shape\":[1],\"data_offsets\":[0,4]", 4, FR_EUNSUPPORTED,
                  "dtype F4? is unknown");
    refuse_tensor("\"dtype\":\"F32\",\"data_offsets\":[0,4]", 4, FR_EFORMAT, "has no shape");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]", 4, FR_EFORMAT,
                  "has a shape that is no list of sizes");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]", 4, FR_EFORMAT,
                  "has a shape that is no list of sizes");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]", 4,
                  FR_EFORMAT, "has more than 8 dimensions");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]", 4,
                  FR_EFORMAT, "is too large");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[1]", 4, FR_EFORMAT,
                  "data_offsets are no two offsets in order");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":{\"a\":0,\"b\":4}", 4,
                  FR_EFORMAT, "data_offsets are no two offsets in order");
}

static void test_lies_about_offsets(void **state)
{
    (void)state;
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]", 4, FR_EFORMAT,
                  "data_offsets are no two offsets in order");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]", 4, FR_EFORMAT,
                  "data ends at 8, the file has 4 bytes of data (truncated?)");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,9007199254740992]", 4,
                  FR_EFORMAT, "data ends at 9007199254740992");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,1e300]", 4, FR_EFORMAT,
                  "data_offsets are no two offsets in order");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]", 4, FR_EFORMAT,
                  "data_offsets span 4 bytes, its shape and dtype take 8");
    refuse_tensor("\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]", 8, FR_EFORMAT,
                  "begins at 4, the tensor before ends at 0");
    refuse("{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 8, FR_EFORMAT,
           "the tensors take 4 bytes, the file has 8 of data");
    refuse("{\"t\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
           "\"u\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
           12, FR_EFORMAT, "tensor u: begins at 4, the tensor before ends at 8");
    refuse("{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
           "\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
           8, FR_EFORMAT, "tensor t: appears twice");
}

/* What opens after the damage lies within the file. */
static void open_damaged(const uint8_t *data, size_t n, int *opened)
{
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, data, n);
    fr_safetensors s = {0};
    if (fr_safetensors_parse("x", copy, n, &s) == FR_OK) {
        ++*opened;
        for (size_t i = 0; i < s.n; i++)
            assert_true(s.tensors[i].data >= copy && s.tensors[i].bytes <= n &&
                        s.tensors[i].data + s.tensors[i].bytes <= copy + n);
        fr_safetensors_free(&s);
    }
    free(copy);
}

static void test_every_damage(void **state)
{
    (void)state;
    size_t size = 0;
    int opened = 0;
    uint8_t *file = file_of(two, 28, &size);
    for (size_t n = 0; n < size; n++)
        open_damaged(file, n, &opened);
    assert_int_equal(opened, 0); /* no truncated file is taken for a whole one */
    for (size_t bit = 0; bit < 8 * size; bit++) {
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
        open_damaged(file, size, &opened);
        file[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(opened > 28 * 8); /* flips in the data and in names open */
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two),
        cmocka_unit_test(test_odd_but_right),
        cmocka_unit_test(test_not_safetensors),
        cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_lies_about_offsets),
        cmocka_unit_test(test_every_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
