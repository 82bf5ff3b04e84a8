/* pretokenize.c: the split expressions, run by PCRE2 in UTF mode with Unicode properties, compiled
 * to machine code where PCRE2 can.
 *
 * A family is one expression or two, the second applied to each piece of the first on its own, so
 * that its lookaheads end at the piece. What lies between two matches is a piece too. White space
 * is spelt out as Unicode's White_Space property: PCRE2's \s also takes U+180E, which tokenizers'
 * own splitters do not. (Source of the expressions: the tokenizer.json of GPT-2, SmolLM2, Llama 3
 * and Qwen2.) */
#include "pretokenize.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <stdlib.h>
#include <string.h>

#include "check.h"

#define SPACES                                                       \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}" \
    "\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define SP "[" SPACES "]"
#define NOT_SP "[^" SPACES "]"
#define OTHER "[^" SPACES "\\p{L}\\p{N}]"

#define GPT2_EXPRESSION \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|" SP "+(?!" NOT_SP ")|" SP "+"
#define LLAMA3_EXPRESSION(digits)                                     \
    "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"       \
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?" OTHER "+[\\r\\n]*" \
    "|" SP "*[\\r\\n]+|" SP "+(?!" NOT_SP ")|" SP "+"

enum { MAX_EXPRESSIONS = 2 };

static const char *const expressions[][MAX_EXPRESSIONS] = {
    [FR_PRE_GPT2] = {GPT2_EXPRESSION},
    [FR_PRE_DIGITS] = {"\\p{N}", GPT2_EXPRESSION},
    [FR_PRE_LLAMA3] = {LLAMA3_EXPRESSION("\\p{N}{1,3}")},
    [FR_PRE_QWEN2] = {LLAMA3_EXPRESSION("\\p{N}")},
    [FR_PRE_LLAMA3_MERGED] = {LLAMA3_EXPRESSION("\\p{N}{1,3}")},
};

/* Names of GGUF converters for tokenizers with these expressions. */
static const struct {
    const char *name;
    fr_pre pre;
} names[] = {
    {"gpt-2", FR_PRE_GPT2},       {"gpt2", FR_PRE_GPT2},
    {"phi-2", FR_PRE_GPT2},       {"mpt", FR_PRE_GPT2},
    {"olmo", FR_PRE_GPT2},        {"jais", FR_PRE_GPT2},
    {"smollm", FR_PRE_DIGITS},    {"starcoder", FR_PRE_DIGITS},
    {"refact", FR_PRE_DIGITS},    {"command-r", FR_PRE_DIGITS},
    {"codeshell", FR_PRE_DIGITS}, {"exaone", FR_PRE_DIGITS},
    {"llama-bpe", FR_PRE_LLAMA3}, {"llama3", FR_PRE_LLAMA3},
    {"llama-v3", FR_PRE_LLAMA3},  {"falcon3", FR_PRE_LLAMA3},
    {"qwen2", FR_PRE_QWEN2},      {"stablelm2", FR_PRE_QWEN2},
    {"hunyuan", FR_PRE_QWEN2},    {"deepseek-r1-qwen", FR_PRE_QWEN2},
    {"megrez", FR_PRE_QWEN2},   {FR_PRE_LLAMA3_MERGED_NAME, FR_PRE_LLAMA3_MERGED},
};

struct fr_splitter {
    int n;
    pcre2_code *code[MAX_EXPRESSIONS];
};

fr_status fr_pre_find(fr_str name, fr_pre *out)
{
    char show[FR_SHOW_BYTES];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (fr_str_equal(name, (fr_str){names[i].name, strlen(names[i].name)})) {
            *out = names[i].pre;
            return FR_OK;
        }
    }
    return fr_fail(FR_EUNSUPPORTED, "pre-tokenizer %s is not supported", fr_str_show(name, show));
}

static fr_status compile(const char *expression, pcre2_code **out)
{
    int error = 0;
    PCRE2_SIZE at = 0;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED,
                                     PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    if (!code && error == PCRE2_ERROR_HEAP_FAILED)
        return fr_no_memory();
    if (!code)
        return fr_fail(FR_EUNSUPPORTED, "PCRE2 error %d at %zu of %s", error, (size_t)at,
                       expression);
    /* Without machine code (not built in, or memory may not be made executable) the interpreter
     * matches the same. */
    (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
    *out = code;
    return FR_OK;
}

fr_status fr_splitter_new(fr_pre pre, fr_splitter **out)
{
    if (pre < FR_PRE_GPT2 || pre > FR_PRE_LLAMA3_MERGED)
        return fr_fail(FR_EUNSUPPORTED, "pre-tokenizer number %d is not supported", (int)pre);
    fr_splitter *s = calloc(1, sizeof *s);
    if (!s)
        return fr_no_memory();
    for (int i = 0; i < MAX_EXPRESSIONS && expressions[pre][i]; i++) {
        fr_status st = compile(expressions[pre][i], &s->code[i]);
        if (st != FR_OK) {
            fr_splitter_free(&s);
            return st;
        }
        s->n = i + 1;
    }
    *out = s;
    return FR_OK;
}

void fr_splitter_free(fr_splitter **p)
{
    if (!p || !*p)
        return;
    for (int i = 0; i < MAX_EXPRESSIONS; i++)
        pcre2_code_free((*p)->code[i]);
    free(*p);
    *p = NULL;
}

typedef struct split_run {
    const fr_splitter *s;
    pcre2_match_data
        *match[MAX_EXPRESSIONS]; /* of this call: matching threads share only the code */
    fr_piece_fn *piece;
    void *arg;
} split_run;

/* The next match at or after `from`; *end_out = *start_out = n when there is none. */
static fr_status next_match(const split_run *r, int level, const char *text, size_t n, size_t from,
                            size_t *start_out, size_t *end_out)
{
    const pcre2_code *code = r->s->code[level];
    uint32_t options = PCRE2_NO_UTF_CHECK;
    int rc = pcre2_match(code, (PCRE2_SPTR)text, n, from, options, r->match[level], NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, (PCRE2_SPTR)text, n, from, options | PCRE2_NO_JIT, r->match[level],
                         NULL);
    if (rc == PCRE2_ERROR_NOMEMORY)
        return fr_no_memory();
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
        return fr_fail(FR_ELIMIT, "cannot split the text at byte %zu: PCRE2 error %d", from, rc);
    *start_out = *end_out = n;
    if (rc >= 0) {
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(r->match[level]);
        *start_out = range[0];
        *end_out = range[1];
    }
    return FR_OK;
}

static fr_status split(const split_run *r, int level, const char *text, size_t n)
{
    if (level >= r->s->n || level >= MAX_EXPRESSIONS)
        return r->piece(r->arg, text, n);
    for (size_t at = 0; at < n;) {
        size_t start = n, end = n;
        FR_TRY(next_match(r, level, text, n, at, &start, &end));
        if (start > at) /* between two matches */
            FR_TRY(split(r, level + 1, text + at, start - at));
        if (end > start)
            FR_TRY(split(r, level + 1, text + start, end - start));
        at = end;
    }
    return FR_OK;
}

fr_status fr_splitter_each(const fr_splitter *s, const char *text, size_t n, fr_piece_fn *piece,
                           void *arg)
{
    split_run r = {.s = s, .piece = piece, .arg = arg};
    fr_status st = FR_OK;
    for (int i = 0; i < s->n && st == FR_OK; i++) {
        r.match[i] = pcre2_match_data_create(1, NULL);
        if (!r.match[i])
            st = fr_no_memory();
    }
    if (st == FR_OK)
        st = split(&r, 0, text, n);
    for (int i = 0; i < s->n; i++)
        pcre2_match_data_free(r.match[i]);
    return st;
}
