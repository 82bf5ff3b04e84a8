/* codec_encode.c: fr_msg structs to protobuf-c structs, one function a message, expanded from
 * codec_fields.h. Texts and numbers are borrowed; what protobuf-c wants behind a pointer is taken
 * from the arena. */
#include <string.h>

#include "check.h"
#include "codec_fields.h"
#include "codec_impl.h"

static fr_status put_text(char **out, const char *text, const char *field)
{
    size_t n = text ? strlen(text) : 0;
    if (fr_utf8_valid(text, n) != n)
        return fr_fail(FR_EFORMAT, "%s is not UTF-8 at byte %zu", field, fr_utf8_valid(text, n));
    *out = (char *)(text ? text : "");
    return FR_OK;
}

/* Like put_text for a text that people read: what is not UTF-8 becomes '?'. */
static fr_status put_cause(char **out, const char *text, fr_arena *a)
{
    size_t n = text ? strlen(text) : 0;
    *out = (char *)(text ? text : "");
    if (fr_utf8_valid(text, n) == n)
        return FR_OK;
    FR_ARENA_TAKE(a, *out, n + 1);
    memcpy(*out, text, n);
    for (size_t at = 0; (at += fr_utf8_valid(*out + at, n - at)) < n;)
        (*out)[at] = '?';
    return FR_OK;
}

static fr_status put_texts(char ***out, const char *const *texts, size_t n, const char *field)
{
    char *checked;
    for (size_t i = 0; i < n; i++)
        FR_TRY(put_text(&checked, texts[i], field));
    *out = (char **)texts;
    return FR_OK;
}

#define ENC_PLAIN(f, ...) out->f = in->f;
#define ENC_FLAG(f, ...) out->f = in->f != 0;
#define ENC_TEXT(f, ...) FR_TRY(put_text(&out->f, in->f, #f));
#define ENC_CAUSE(f, ...) FR_TRY(put_cause(&out->f, in->f, a));
#define ENC_BYTES(f, ...) out->f = (ProtobufCBinaryData){in->f.len, (uint8_t *)in->f.data};
#define ENC_NUMS(f, ...)        \
    out->n_##f = in->n_##f;     \
    out->f = (void *)in->f;
#define ENC_TEXTS(f, ...)       \
    out->n_##f = in->n_##f;     \
    FR_TRY(put_texts(&out->f, in->f, in->n_##f, #f));
#define ENC_SUB(f, type, ...)                        \
    FR_ARENA_TAKE(a, out->f, sizeof *out->f);        \
    FR_TRY(encode_##type(&in->f, out->f, a));
#define ENC_REP(f, type, ...)                                    \
    out->n_##f = in->n_##f;                                      \
    FR_ARENA_TAKE(a, out->f, in->n_##f * sizeof *out->f);        \
    for (size_t i = 0; i < in->n_##f; i++) {                     \
        FR_ARENA_TAKE(a, out->f[i], sizeof *out->f[i]);          \
        FR_TRY(encode_##type(&in->f[i], out->f[i], a));          \
    }
#define ENC_FIELD(kind, ...) ENC_##kind(__VA_ARGS__, )

#define ENCODER(name, proto, fields)                                                             \
    static fr_status encode_##name(const fr_msg_##name *in, Forerun__##proto *out, fr_arena *a)  \
    {                                                                                            \
        (void)a;                                                                                 \
        forerun__##name##__init(out);                                                            \
        fields(ENC_FIELD) return FR_OK;                                                          \
    }
FR_CODEC_MESSAGES(ENCODER)

/* The envelope's member for Register is register_, as `register` is a word of C. */
#define encode_register_ encode_register

fr_status fr_codec_encode_body(const fr_msg *m, Forerun__Envelope *env, fr_arena *a)
{
    switch (m->kind) {
#define X(kind, member, number)                                  \
    case FR_MSG_##kind:                                          \
        FR_ARENA_TAKE(a, env->member, sizeof *env->member);      \
        env->body_case = FORERUN__ENVELOPE__BODY_##kind;         \
        return encode_##member(&m->body.member, env->member, a);
        FR_MSG_MAP(X)
#undef X
    case FR_MSG_NONE:
        break;
    }
    return fr_fail(FR_EINVAL, "message of no known kind (%d)", (int)m->kind);
}
