/* test_codec.c: every message kind, with every field set and with none, through bytes and back;
 * then hostile bytes and failing allocations. The fillers and comparers are expanded from
 * codec_fields.h; that its lists are complete is checked against the text of forerun.proto. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "codec.h"
#include "codec_arena.h"
#include "codec_fields.h"
#include "fault_alloc.h"
#include "rng.h"

static const fr_msg_kind all_kinds[] = {
#define X(kind, member, number) FR_MSG_##kind,
    FR_MSG_MAP(X)
#undef X
};
#define N_KINDS (sizeof all_kinds / sizeof *all_kinds)

/* ---- messages with every field set */

typedef struct source {
    uint32_t counter, seed;
    fr_arena *memory;
} source;

static uint64_t draw(source *s)
{
    uint32_t out[4];
    fr_philox((uint32_t[4]){s->counter++, 0, 0, 0}, (uint32_t[2]){s->seed, 1}, out);
    return (uint64_t)out[1] << 32 | out[0] | 1; /* never zero */
}

static const char *draw_text(source *s)
{
    static const char *const texts[] = {"x", "two words", "\n\n", "na\xc3\xafve",
                                        "\xe2\x88\x91 \xf0\x9f\x98\x80"};
    return texts[draw(s) % 5];
}

#define FILL_PLAIN(f, ...) out->f = (__typeof__(out->f))draw(s);
#define FILL_FLAG(f, ...) out->f = 1;
#define FILL_TEXT(f, ...) out->f = draw_text(s);
#define FILL_CAUSE(f, ...) FILL_TEXT(f)
#define FILL_BYTES(f, ...) out->f = (fr_bytes){(const uint8_t *)"\0\xff\x80 bytes", 9};
/* Ids and floats are both 4 bytes, and any bits will do. */
#define FILL_NUMS(f, ...)                                                     \
    {                                                                         \
        size_t n = 1 + draw(s) % 9;                                           \
        _Static_assert(sizeof *out->f == 4, "ids or floats");                 \
        uint32_t *items = fr_arena_take(s->memory, n * sizeof *items);        \
        for (size_t i = 0; i < n; i++)                                        \
            items[i] = (uint32_t)draw(s);                                     \
        out->f = (void *)items;                                               \
        out->n_##f = n;                                                       \
    }
#define FILL_TEXTS(f, ...)                                                    \
    {                                                                         \
        size_t n = 1 + draw(s) % 4;                                           \
        const char **items = fr_arena_take(s->memory, n * sizeof *items);     \
        for (size_t i = 0; i < n; i++)                                        \
            items[i] = draw_text(s);                                          \
        out->f = items;                                                       \
        out->n_##f = n;                                                       \
    }
#define FILL_SUB(f, type, ...) fill_##type(&out->f, s);
#define FILL_REP(f, type, ...)                                                \
    {                                                                         \
        size_t n = 1 + draw(s) % 4;                                           \
        fr_msg_##type *items = fr_arena_take(s->memory, n * sizeof *items);   \
        for (size_t i = 0; i < n; i++)                                        \
            fill_##type(&items[i], s);                                        \
        out->f = items;                                                       \
        out->n_##f = n;                                                       \
    }
#define FILL_FIELD(kind, ...) FILL_##kind(__VA_ARGS__, )
#define FILLER(name, proto, fields)                            \
    static void fill_##name(fr_msg_##name *out, source *s)     \
    {                                                          \
        (void)s;                                               \
        fields(FILL_FIELD)                                     \
    }
FR_CODEC_MESSAGES(FILLER)
#define fill_register_ fill_register

static fr_msg full_message(fr_msg_kind kind, source *s)
{
    fr_msg m = {.kind = kind, .tag = draw(s)};
    switch (kind) {
#define X(k, member, number)                 \
    case FR_MSG_##k:                         \
        fill_##member(&m.body.member, s);    \
        break;
        FR_MSG_MAP(X)
#undef X
    case FR_MSG_NONE:
        break;
    }
    return m;
}

/* ---- comparing: NULL texts and absent ones are equal */

#define SAME_PLAIN(f, ...) assert_true(a->f == b->f);
#define SAME_FLAG(f, ...) SAME_PLAIN(f)
#define SAME_TEXT(f, ...)     \
    assert_non_null(b->f);    \
    assert_string_equal(a->f ? a->f : "", b->f);
#define SAME_CAUSE(f, ...) SAME_TEXT(f)
#define SAME_BYTES(f, ...)                       \
    assert_int_equal(a->f.len, b->f.len);        \
    if (a->f.len)                                \
        assert_memory_equal(a->f.data, b->f.data, a->f.len);
#define SAME_NUMS(f, ...)                        \
    assert_int_equal(a->n_##f, b->n_##f);        \
    if (a->n_##f)                                \
        assert_memory_equal(a->f, b->f, a->n_##f * sizeof *a->f);
#define SAME_TEXTS(f, ...)                       \
    assert_int_equal(a->n_##f, b->n_##f);        \
    for (size_t i = 0; i < a->n_##f; i++)        \
        assert_string_equal(a->f[i], b->f[i]);
#define SAME_SUB(f, type, ...) same_##type(&a->f, &b->f);
#define SAME_REP(f, type, ...)                   \
    assert_int_equal(a->n_##f, b->n_##f);        \
    for (size_t i = 0; i < a->n_##f; i++)        \
        same_##type(&a->f[i], &b->f[i]);
#define SAME_FIELD(kind, ...) SAME_##kind(__VA_ARGS__, )
#define COMPARER(name, proto, fields)                                             \
    static void same_##name(const fr_msg_##name *a, const fr_msg_##name *b)       \
    {                                                                             \
        fields(SAME_FIELD)                                                        \
    }
FR_CODEC_MESSAGES(COMPARER)
#define same_register_ same_register

static void same_message(const fr_msg *a, const fr_msg *b)
{
    assert_int_equal(a->kind, b->kind);
    assert_true(a->tag == b->tag);
    switch (a->kind) {
#define X(k, member, number)                               \
    case FR_MSG_##k:                                       \
        same_##member(&a->body.member, &b->body.member);   \
        break;
        FR_MSG_MAP(X)
#undef X
    case FR_MSG_NONE:
        break;
    }
}

/* ---- tests */

static source new_source(uint32_t seed)
{
    source s = {.seed = seed};
    assert_int_equal(fr_arena_new(1 << 24, &s.memory), FR_OK);
    return s;
}

static void check_round_trip(const fr_msg *m)
{
    fr_buf bytes = {0};
    fr_msg back;
    assert_int_equal(fr_msg_encode(m, &bytes), FR_OK);
    assert_int_equal(fr_msg_decode(bytes.data, bytes.len, &back), FR_OK);
    same_message(m, &back);
    fr_msg_free(&back);
    assert_int_equal(back.kind, FR_MSG_NONE);
    fr_buf_free(&bytes);
}

static void test_round_trip_full(void **state)
{
    (void)state;
    for (uint32_t seed = 0; seed < 20; seed++) {
        source s = new_source(seed);
        for (size_t k = 0; k < N_KINDS; k++) {
            fr_msg m = full_message(all_kinds[k], &s);
            check_round_trip(&m);
        }
        fr_arena_free(&s.memory);
    }
}

static void test_round_trip_empty(void **state)
{
    (void)state;
    for (size_t k = 0; k < N_KINDS; k++)
        check_round_trip(&(fr_msg){.kind = all_kinds[k]});
}

/* Decoding must not read past the end: the bytes lie in an allocation of their exact size. */
static fr_status decode_exact(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    memcpy(copy, data, n);
    fr_msg m;
    fr_status st = fr_msg_decode(copy, n, &m);
    if (st != FR_OK) {
        assert_int_equal(st, FR_EPROTO);
        assert_int_equal(m.kind, FR_MSG_NONE);
        assert_null(m.owned);
    }
    fr_msg_free(&m);
    free(copy);
    return st;
}

static void test_truncated(void **state)
{
    (void)state;
    source s = new_source(3);
    for (size_t k = 0; k < N_KINDS; k++) {
        fr_msg m = full_message(all_kinds[k], &s);
        fr_buf bytes = {0};
        assert_int_equal(fr_msg_encode(&m, &bytes), FR_OK);
        size_t refused = 0;
        for (size_t n = 0; n < bytes.len; n++)
            refused += decode_exact(bytes.data, n) != FR_OK;
        assert_int_equal(refused,
                         bytes.len); /* the body is one field behind the tag: no prefix is whole */
        fr_buf_free(&bytes);
    }
    fr_arena_free(&s.memory);
}

static void test_bit_flips(void **state)
{
    (void)state;
    source s = new_source(4);
    for (size_t k = 0; k < N_KINDS; k++) {
        fr_msg m = full_message(all_kinds[k], &s);
        fr_buf bytes = {0};
        assert_int_equal(fr_msg_encode(&m, &bytes), FR_OK);
        for (size_t bit = 0; bit < bytes.len * 8; bit++) {
            bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            decode_exact(bytes.data, bytes.len);
            bytes.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        fr_buf_free(&bytes);
    }
    fr_arena_free(&s.memory);
}

static void test_no_body(void **state)
{
    (void)state;
    assert_int_equal(decode_exact((const uint8_t *)"", 0), FR_EPROTO);
    assert_int_equal(decode_exact((const uint8_t *)"\x08\x05", 2), FR_EPROTO); /* a tag alone */
    assert_int_equal(decode_exact((const uint8_t *)"\xfa\x05\x00", 3), FR_EPROTO);     /* body 95 */
    fr_buf out = {0};
    assert_int_equal(fr_msg_encode(&(fr_msg){.kind = FR_MSG_NONE}, &out), FR_EINVAL);
    assert_int_equal(fr_msg_encode(&(fr_msg){.kind = (fr_msg_kind)99}, &out), FR_EINVAL);
    fr_buf_free(&out);
}

static void test_utf8(void **state)
{
    (void)state;
    const struct {
        const char *text;
        int good;
    } cases[] = {
        {"plain", 1},
        {"\xc3\xa9", 1},
        {"\xed\x9f\xbf", 1},
        {"\xf4\x8f\xbf\xbf", 1},
        {"\x80", 0},
        {"a\xc3", 0},
        {"\xc0\xaf", 0},
        {"\xe0\x80\xaf", 0},
        {"\xed\xa0\x80", 0},
        {"\xf4\x90\x80\x80", 0},
        {"\xf0\x80\x80\xaf", 0},
        {"\xff", 0},
        {"\xe2\x82", 0},
        {"\xf8\x88\x80\x80", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t frame[32];
        size_t n = strlen(cases[i].text);
        fr_msg m = {.kind = FR_MSG_LIST_QUERY, .body.list_query.state = cases[i].text};
        fr_buf out = {0};
        assert_int_equal(fr_msg_encode(&m, &out), cases[i].good ? FR_OK : FR_EFORMAT);
        fr_buf_free(&out);
        /* The same as a peer without scruples sends it: body 53, field 2. */
        memcpy(frame, (uint8_t[]){0xaa, 0x03, (uint8_t)(n + 2), 0x12, (uint8_t)n}, 5);
        memcpy(frame + 5, cases[i].text, n);
        assert_int_equal(decode_exact(frame, n + 5), cases[i].good ? FR_OK : FR_EPROTO);
        if (!cases[i].good)
            assert_non_null(strstr(fr_cause(), "state is not UTF-8"));
    }
}

static void test_causes_are_always_sent(void **state)
{
    (void)state;
    fr_msg m = {.kind = FR_MSG_ERROR, .body.error.cause = "no file \xff\xfe.gguf\xc3"}, back;
    fr_buf out = {0};
    assert_int_equal(fr_msg_encode(&m, &out), FR_OK);
    assert_int_equal(fr_msg_decode(out.data, out.len, &back), FR_OK);
    assert_string_equal(back.body.error.cause, "no file ?\?.gguf?");
    fr_msg_free(&back);
    out.len = 0;
    m = (fr_msg){.kind = FR_MSG_REGISTER,
                 .body.register_ = {.name = "caf\xe9", .model_name = "\xe9"}};
    assert_int_equal(fr_msg_encode(&m, &out), FR_OK);
    assert_int_equal(fr_msg_decode(out.data, out.len, &back), FR_OK);
    assert_string_equal(back.body.register_.name, "caf?");
    assert_string_equal(back.body.register_.model_name, "?");
    fr_msg_free(&back);
    fr_buf_free(&out);
}

/* Two bytes make one empty JobInfo of some 400: a frame of 4 MB must not become a gigabyte. */
static void test_memory_bomb(void **state)
{
    (void)state;
    fr_buf frame = {0};
    const uint32_t n = 2u << 20;
    assert_int_equal(fr_buf_put(&frame, (uint8_t[]){0xda, 0x04, 0x80, 0x80, 0x80, 0x02}, 6), FR_OK);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(fr_buf_put(&frame, "\x0a\x00", 2), FR_OK);
    fr_msg m;
    assert_int_equal(fr_msg_decode(frame.data, frame.len, &m), FR_EPROTO);
    assert_non_null(strstr(fr_cause(), "unfolds"));
    fr_buf_free(&frame);
}

static void test_long_prompt_fits(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    int32_t *ids = calloc(N, sizeof *ids);
    assert_non_null(ids);
    for (int i = 0; i < N; i++)
        ids[i] = i % 100;
    fr_msg m = {.kind = FR_MSG_GENERATE, .body.generate.prefix = {.tokens = ids, .n_tokens = N}};
    check_round_trip(&m);
    free(ids);
}

static void test_allocation_failures(void **state)
{
    (void)state;
    source s = new_source(5);
    for (size_t k = 0; k < N_KINDS; k++) {
        fr_msg m = full_message(all_kinds[k], &s), back;
        fr_buf bytes = {0};
        for (long n = 0, failed = 1; failed; n++) {
            fr_buf_free(&bytes);
            fr_fault_alloc_arm(n);
            fr_status st = fr_msg_encode(&m, &bytes);
            failed = fr_fault_alloc_disarm();
            assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        }
        for (long n = 0, failed = 1; failed; n++) {
            fr_fault_alloc_arm(n);
            fr_status st = fr_msg_decode(bytes.data, bytes.len, &back);
            failed = fr_fault_alloc_disarm();
            assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
            fr_msg_free(&back);
        }
        fr_buf_free(&bytes);
    }
    fr_arena_free(&s.memory);
}

static void test_kind_names(void **state)
{
    (void)state;
    assert_string_equal(fr_msg_kind_name(FR_MSG_REGISTER), "register");
    assert_string_equal(fr_msg_kind_name(FR_MSG_CANCEL_REQUEST), "cancel_request");
    assert_string_equal(fr_msg_kind_name((fr_msg_kind)99), "unknown");
}

/* The fields of a message in forerun.proto: what stands before the ';'s of its braces. -1: no such
 * message. */
static int fields_in_schema(const char *schema, const char *message)
{
    char start[64];
    snprintf(start, sizeof start, "\nmessage %s {", message);
    const char *at = strstr(schema, start);
    if (!at)
        return -1;
    int n = 0, comment = 0;
    for (at += strlen(start); *at && (comment || *at != '}'); at++) {
        comment = *at == '\n' ? 0 : comment || strncmp(at, "//", 2) == 0;
        n += !comment && *at == ';';
    }
    return n;
}

static void test_field_lists_are_complete(void **state)
{
    (void)state;
    static char schema[1 << 16];
    FILE *f = fopen(FORERUN_SOURCE_DIR "/proto/forerun.proto", "r");
    assert_non_null(f);
    assert_in_range(fread(schema, 1, sizeof schema - 1, f), 1000, sizeof schema - 2);
    fclose(f);
#define ONE(...) +1
#define COUNT(name, proto, fields) \
    assert_int_equal(fields_in_schema(schema, #proto), 0 fields(ONE));
    FR_CODEC_MESSAGES(COUNT)
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip_full),
        cmocka_unit_test(test_round_trip_empty),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_bit_flips),
        cmocka_unit_test(test_no_body),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_causes_are_always_sent),
        cmocka_unit_test(test_memory_bomb),
        cmocka_unit_test(test_long_prompt_fits),
        cmocka_unit_test(test_allocation_failures),
        cmocka_unit_test(test_kind_names),
        cmocka_unit_test(test_field_lists_are_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
