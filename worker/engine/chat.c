/* chat.c: the chat families as lists of parts (chat.h). A model file's template is Jinja; it is
 * recognised by the marker that only its family uses, never run. */
#include "chat.h"

#include <string.h>

typedef struct part_list {
    fr_text_part *parts;
    int n;
} part_list;

static void put(part_list *l, const char *text, int parse_special)
{
    l->parts[l->n++] = (fr_text_part){text, strlen(text), parse_special};
}

/* The texts around the contents. */
typedef struct chat_texts {
    const char *marker; /* in a template: this family */
    const char *begin, *system_open, *system_close, *user_open, *user_close;
    const char *probe_open, *probe_close; /* around the question; the prefill follows */
} chat_texts;

static const chat_texts families[] = {
    [FR_CHAT_NONE] = {.begin = "",
                      .system_open = "",
                      .system_close = "\n\n",
                      .user_open = "",
                      .user_close = "",
                      .probe_open = "\n\n",
                      .probe_close = "\n"},
    [FR_CHAT_CHATML] = {.marker = "<|im_start|>",
                        .begin = "",
                        .system_open = "<|im_start|>system\n",
                        .system_close = "<|im_end|>\n",
                        .user_open = "<|im_start|>user\n",
                        .user_close = "<|im_end|>\n<|im_start|>assistant\n",
                        .probe_open = "<|im_end|>\n<|im_start|>user\n",
                        .probe_close = "<|im_end|>\n<|im_start|>assistant\n"},
    [FR_CHAT_LLAMA3] = {.marker = "<|start_header_id|>",
                        .begin = "<|begin_of_text|>",
                        .system_open = "<|start_header_id|>system<|end_header_id|>\n\n",
                        .system_close = "<|eot_id|>",
                        .user_open = "<|start_header_id|>user<|end_header_id|>\n\n",
                        .user_close = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
                        .probe_open = "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
                        .probe_close =
                            "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
    /* The probe leaves the thinking open and begins a reply without any, as the model sees earlier
     * turns. */
    [FR_CHAT_DEEPSEEK] = {.marker = "<｜Assistant｜>",
                          .begin = "<｜begin▁of▁sentence｜>",
                          .system_open = "",
                          .system_close = "",
                          .user_open = "<｜User｜>",
                          .user_close = "<｜Assistant｜><think>\n",
                          .probe_open = "<｜end▁of▁sentence｜><｜User｜>",
                          .probe_close = "<｜Assistant｜>"},
    /* The marker is how the template writes what a reply begins with: Jinja's \n in a literal. One
     * that opens the thinking only for earlier turns, or not at all, is plain ChatML. */
    [FR_CHAT_THINKING] = {.marker = "<|im_start|>assistant\\n<think>",
                          .begin = "",
                          .system_open = "<|im_start|>system\n",
                          .system_close = "<|im_end|>\n",
                          .user_open = "<|im_start|>user\n",
                          .user_close = "<|im_end|>\n<|im_start|>assistant\n<think>\n",
                          .probe_open = "<|im_end|>\n<|im_start|>user\n",
                          .probe_close = "<|im_end|>\n<|im_start|>assistant\n"},
};

static int contains(const char *text, size_t n, const char *what)
{
    return memmem(text, n, what, strlen(what)) != NULL;
}

fr_status fr_chat_detect(const char *template_text, size_t n, fr_chat_style *out)
{
    if (!template_text || n == 0) {
        *out = FR_CHAT_NONE;
        return FR_OK;
    }
    /* One that has the mark of plain ChatML too comes before it. */
    static const fr_chat_style order[] = {FR_CHAT_THINKING, FR_CHAT_CHATML, FR_CHAT_LLAMA3, FR_CHAT_DEEPSEEK};
    for (size_t k = 0; k < sizeof order / sizeof *order; k++) {
        const fr_chat_style i = order[k];
        /* Phi-4 shares ChatML's marker but separates roles by another token. */
        if (contains(template_text, n, families[i].marker) &&
            !(i == FR_CHAT_CHATML && contains(template_text, n, "<|im_sep|>"))) {
            *out = i;
            return FR_OK;
        }
    }
    return fr_fail(FR_EUNSUPPORTED,
                   "the chat template is of no supported family (ChatML, Llama 3, DeepSeek-R1)");
}

int fr_chat_prompt_parts(fr_chat_style style, const char *system, const char *user,
                         fr_text_part out[FR_CHAT_PARTS_MAX])
{
    const chat_texts *c = &families[style];
    part_list l = {out, 0};
    put(&l, c->begin, 1);
    if (system) {
        put(&l, c->system_open, 1);
        put(&l, system, 0);
        put(&l, c->system_close, 1);
    }
    put(&l, c->user_open, 1);
    put(&l, user, 0);
    put(&l, c->user_close, 1);
    return l.n;
}

int fr_chat_probe_parts(fr_chat_style style, const char *question, const char *prefill,
                        fr_text_part out[FR_CHAT_PARTS_MAX])
{
    const chat_texts *c = &families[style];
    part_list l = {out, 0};
    put(&l, c->probe_open, 1);
    put(&l, question, 0);
    put(&l, c->probe_close, 1);
    put(&l, prefill, 0);
    return l.n;
}

static fr_status join(const fr_text_part *parts, int n, fr_buf *out)
{
    size_t before = out->len;
    for (int i = 0; i < n; i++) {
        fr_status st = fr_buf_put(out, parts[i].text, parts[i].n);
        if (st != FR_OK) {
            out->len = before;
            return st;
        }
    }
    return FR_OK;
}

fr_status fr_chat_prompt(fr_chat_style style, const char *system, const char *user, fr_buf *out)
{
    fr_text_part parts[FR_CHAT_PARTS_MAX];
    return join(parts, fr_chat_prompt_parts(style, system, user, parts), out);
}

fr_status fr_chat_probe(fr_chat_style style, const char *question, const char *prefill, fr_buf *out)
{
    fr_text_part parts[FR_CHAT_PARTS_MAX];
    return join(parts, fr_chat_probe_parts(style, question, prefill, parts), out);
}
