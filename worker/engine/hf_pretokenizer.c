/* hf_pretokenizer.c: see hf_pretokenizer.h.
 *
 * Its pre_tokenizer is one step or a Sequence of them. The known ones are: a Split by an expression
 * and then ByteLevel without one of its own; every digit alone and then ByteLevel with its own,
 * which is GPT-2's; ByteLevel alone. */
#include "hf_pretokenizer.h"

#include <cjson/cJSON.h>
#include <string.h>

#include "check.h"

#define LLAMA3_EXPRESSION(digits)                                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *expression, *name;
} expressions[] = {
    {LLAMA3_EXPRESSION("\\p{N}"), "qwen2"},
    {LLAMA3_EXPRESSION("\\p{N}{1,3}"), "llama-bpe"},
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", "gpt-2"},
};

static fr_status unknown(fr_hf_object o, const char *what, const char *name)
{
    char show[FR_SHOW_BYTES];
    return fr_fail(FR_EUNSUPPORTED,
                   "%s: pre_tokenizer: %s %s is not supported (those of GPT-2, SmolLM, Llama 3 and "
                   "Qwen2 are)",
                   o.path, what, fr_str_show(fr_str_of(name), show));
}

static fr_status find_expression(fr_hf_object split, const char **out)
{
    const char *expression = NULL, *behavior = "";
    int invert = 0;
    FR_TRY(fr_hf_text(fr_hf_child(split, "pattern"), "Regex", &expression));
    FR_TRY(fr_hf_optional_text(split, "behavior", &behavior));
    FR_TRY(fr_hf_optional_bool(split, "invert", &invert));
    /* The matches are the pieces, either way. */
    if (strcmp(behavior, invert ? "Removed" : "Isolated") != 0)
        return unknown(split, "Split with behavior", behavior);
    for (size_t i = 0; i < sizeof expressions / sizeof *expressions; i++) {
        if (strcmp(expression, expressions[i].expression) == 0) {
            *out = expressions[i].name;
            return FR_OK;
        }
    }
    return unknown(split, "Split by", expression);
}

/* What the steps so far amount to. */
typedef struct splitting {
    const char *name;       /* of the expression; NULL: none yet */
    int digits, byte_level; /* seen */
} splitting;

static fr_status take_byte_level(fr_hf_object step, splitting *s)
{
    int own = 1, prefix = 1;
    FR_TRY(fr_hf_optional_bool(step, "use_regex", &own));
    FR_TRY(fr_hf_optional_bool(step, "add_prefix_space", &prefix));
    if (prefix)
        return unknown(step, "ByteLevel with", "add_prefix_space");
    if (own == (s->name != NULL))
        return unknown(step, "ByteLevel", own ? "beside a Split" : "without an expression");
    if (own)
        s->name = s->digits ? "smollm" : "gpt-2";
    s->byte_level = 1;
    return FR_OK;
}

static fr_status take_step(fr_hf_object step, splitting *s)
{
    const char *type = NULL;
    int individual = 0;
    FR_TRY(fr_hf_text(step, "type", &type));
    if (!s->byte_level && strcmp(type, "ByteLevel") == 0)
        return take_byte_level(step, s);
    if (!s->byte_level && !s->name && !s->digits && strcmp(type, "Split") == 0)
        return find_expression(step, &s->name);
    if (s->byte_level || s->name || s->digits || strcmp(type, "Digits") != 0)
        return unknown(step, "step", type);
    FR_TRY(fr_hf_optional_bool(step, "individual_digits", &individual));
    if (!individual)
        return unknown(step, "Digits without", "individual_digits");
    s->digits = 1;
    return FR_OK;
}

fr_status fr_hf_pretokenizer(fr_hf_object tokenizer, const char **out)
{
    fr_hf_object whole = fr_hf_child(tokenizer, "pre_tokenizer");
    const char *type = NULL;
    splitting s = {0};
    FR_TRY(fr_hf_text(whole, "type", &type));
    if (strcmp(type, "Sequence") != 0) {
        FR_TRY(take_step(whole, &s));
    } else {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(whole.at, "pretokenizers"), *step;
        cJSON_ArrayForEach(step, list)
        {
            FR_TRY(take_step((fr_hf_object){whole.path, step}, &s));
        }
    }
    if (!s.byte_level)
        return unknown(whole, type, "without ByteLevel");
    *out = s.name;
    return FR_OK;
}
