/* codec.c: the codec's public functions around codec_encode.c and codec_decode.c, and the checks
 * that protobuf-c does not make: valid UTF-8, a body, and a bound on what a frame unfolds to.
 *
 * A decoded message owns an arena that holds protobuf-c's unpacked structs as well as our own, so
 * freeing is one call and nothing can leak half-way. The schema does not nest in itself and
 * protobuf-c skips unknown fields without descending into them, so no input makes the decoder
 * recurse deeper than the schema. */
#include "codec.h"

#include "check.h"
#include "codec_impl.h"

/* Decoded structs may take this many bytes, and this many more for each byte of the frame: a
 * one-byte varint becomes a four-byte id, a small Probe a struct of about 150 bytes. */
#define BUDGET_BASE ((size_t)4 << 20)
#define BUDGET_PER_BYTE 8u

_Static_assert((int)FR_MSG_REGISTER == (int)FORERUN__ENVELOPE__BODY_REGISTER &&
                   (int)FR_MSG_OK == (int)FORERUN__ENVELOPE__BODY_OK,
               "kinds are the envelope's field numbers");

size_t fr_utf8_valid(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    size_t i = 0;
    while (i < n) {
        unsigned char c = p[i];
        size_t more = c < 0x80 ? 0 : c < 0xc2 ? 4 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : 4;
        if (more == 4 || more > n - i - 1)
            return i;
        for (size_t k = 1; k <= more; k++)
            if ((p[i + k] & 0xc0) != 0x80)
                return i;
        /* Overlong forms, surrogates and values over U+10FFFF show in the second byte. */
        if ((c == 0xe0 && p[i + 1] < 0xa0) || (c == 0xed && p[i + 1] > 0x9f) ||
            (c == 0xf0 && p[i + 1] < 0x90) || (c == 0xf4 && p[i + 1] > 0x8f))
            return i;
        i += more + 1;
    }
    return n;
}

const char *fr_msg_kind_name(fr_msg_kind kind)
{
    switch (kind) {
#define X(k, member, number) \
    case FR_MSG_##k:         \
        return FR_MSG_##k == FR_MSG_REGISTER ? "register" : #member;
        FR_MSG_MAP(X)
#undef X
    case FR_MSG_NONE:
        break;
    }
    return "unknown";
}

fr_status fr_msg_encode(const fr_msg *m, fr_buf *out)
{
    fr_arena *a = NULL;
    fr_status st;
    Forerun__Envelope env;
    forerun__envelope__init(&env);
    env.tag = m->tag;
    FR_TRY(fr_arena_new(SIZE_MAX, &a));
    FR_TRY_GOTO(st, fr_codec_encode_body(m, &env, a), done);
    size_t n = forerun__envelope__get_packed_size(&env);
    FR_TRY_GOTO(st, fr_buf_reserve(out, n), done);
    out->len += forerun__envelope__pack(&env, out->data + out->len);
done:
    fr_arena_free(&a);
    return st;
}

static void *unpack_alloc(void *arena, size_t n)
{
    return fr_arena_take(arena, n);
}

static void unpack_free(void *arena, void *p)
{
    (void)arena; /* all at once, by fr_msg_free() */
    (void)p;
}

fr_status fr_msg_decode(const void *data, size_t n, fr_msg *out)
{
    fr_msg m = {0};
    fr_arena *a = NULL;
    fr_status st;
    *out = m; /* so that a failed decode can be freed too */
    if (n > (SIZE_MAX - BUDGET_BASE) / BUDGET_PER_BYTE)
        return fr_fail(FR_EPROTO, "message of %zu bytes is too long", n);
    FR_TRY(fr_arena_new(BUDGET_BASE + BUDGET_PER_BYTE * n, &a));

    ProtobufCAllocator allocator = {
        .alloc = unpack_alloc, .free = unpack_free, .allocator_data = a};
    Forerun__Envelope *env = forerun__envelope__unpack(&allocator, n, data);
    FR_TRY_GOTO(st, fr_arena_status(a), fail);
    if (!env) {
        st = fr_fail(FR_EPROTO, "message of %zu bytes is malformed", n);
        goto fail;
    }
    m.tag = env->tag;
    FR_TRY_GOTO(st, fr_codec_decode_body(env, &m, a), fail);
    m.owned = a;
    *out = m;
    return FR_OK;
fail:
    fr_arena_free(&a);
    return st == FR_ELIMIT ? FR_EPROTO : st;
}

void fr_msg_free(fr_msg *m)
{
    if (!m)
        return;
    fr_arena *a = m->owned;
    fr_arena_free(&a);
    *m = (fr_msg){0};
}
