/* codec_decode.c: unpacked protobuf-c structs to fr_msg structs, one function a message, expanded
 * from codec_fields.h. An absent sub-message is decoded as one with all fields absent, so that
 * callers never meet a NULL. */
#include <string.h>

#include "check.h"
#include "codec_fields.h"
#include "codec_impl.h"

/* protobuf-c leaves this check to its caller. */
static fr_status get_text(const char **out, const char *text, const char *field)
{
    size_t n = strlen(text), good = fr_utf8_valid(text, n);
    if (good != n)
        return fr_fail(FR_EPROTO, "%s is not UTF-8 at byte %zu", field, good);
    *out = text;
    return FR_OK;
}

static fr_status get_texts(const char *const **out, char **texts, size_t n, const char *field)
{
    const char *checked;
    for (size_t i = 0; i < n; i++)
        FR_TRY(get_text(&checked, texts[i], field));
    *out = (const char *const *)texts;
    return FR_OK;
}

#define DEC_PLAIN(f, ...) out->f = in->f;
#define DEC_FLAG(f, ...) out->f = in->f != 0;
#define DEC_TEXT(f, ...) FR_TRY(get_text(&out->f, in->f, #f));
#define DEC_CAUSE(f, ...) DEC_TEXT(f)
#define DEC_BYTES(f, ...) out->f = (fr_bytes){in->f.data, in->f.len};
#define DEC_NUMS(f, ...)        \
    out->n_##f = in->n_##f;     \
    out->f = in->f;
#define DEC_TEXTS(f, ...)       \
    out->n_##f = in->n_##f;     \
    FR_TRY(get_texts(&out->f, in->f, in->n_##f, #f));
#define DEC_SUB(f, type, ...) FR_TRY(decode_##type(in->f, &out->f, a));
#define DEC_REP(f, type, ...)                                                                \
    {                                                                                        \
        fr_msg_##type *items;                                                                \
        FR_ARENA_TAKE(a, items, in->n_##f * sizeof *items);                                  \
        for (size_t i = 0; i < in->n_##f; i++)                                               \
            FR_TRY(decode_##type(in->f[i], &items[i], a));                                   \
        out->f = items;                                                                      \
        out->n_##f = in->n_##f;                                                              \
    }
#define DEC_FIELD(kind, ...) DEC_##kind(__VA_ARGS__, )

#define DECODER(name, proto, fields)                                                             \
    static fr_status decode_##name(const Forerun__##proto *in, fr_msg_##name *out, fr_arena *a)  \
    {                                                                                            \
        Forerun__##proto absent;                                                                 \
        (void)a;                                                                                 \
        if (!in) {                                                                               \
            forerun__##name##__init(&absent);                                                    \
            in = &absent;                                                                        \
        }                                                                                        \
        fields(DEC_FIELD) return FR_OK;                                                          \
    }
FR_CODEC_MESSAGES(DECODER)

/* The envelope's member for Register is register_, as `register` is a word of C. */
#define decode_register_ decode_register

fr_status fr_codec_decode_body(const Forerun__Envelope *env, fr_msg *m, fr_arena *a)
{
    m->kind = (fr_msg_kind)env->body_case; /* both are the field's number */
    switch (m->kind) {
#define X(kind, member, number) \
    case FR_MSG_##kind:         \
        return decode_##member(env->member, &m->body.member, a);
        FR_MSG_MAP(X)
#undef X
    case FR_MSG_NONE:
        break;
    }
    return fr_fail(FR_EPROTO, "message without a body that this version knows");
}
