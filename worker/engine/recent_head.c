/* recent_head.c: see recent_head.h. */
#include "recent_head.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "log.h"

fr_status fr_recent_head_open(fr_recent_head *r, const fr_model *model)
{
    *r = (fr_recent_head){0};
    if (model->rough_vocab == 0)
        return FR_OK;
    size_t n_vocab = (size_t)model->config.n_vocab;
    r->model = model;
    r->known = malloc(n_vocab);
    r->rows = malloc(FR_RECENT * model->head_table.row_bytes);
    r->head.tokens = malloc(FR_RECENT * sizeof *r->head.tokens);
    if (!r->known || !r->rows || !r->head.tokens) {
        fr_recent_head_close(r);
        return fr_no_memory();
    }
    memcpy(r->known, model->in_rough_head, n_vocab);
    return FR_OK;
}

void fr_recent_head_close(fr_recent_head *r)
{
    if (r->model)
        r->model->ops->weight_free(r->model->dev, &r->head.weight);
    free(r->head.tokens);
    free(r->rows);
    free(r->known);
    *r = (fr_recent_head){0};
}

/* 1: the token is new, and this rank's. */
static int take(fr_recent_head *r, int32_t token)
{
    if (token < r->model->slice.vocab.lo || token >= r->model->slice.vocab.hi || r->known[token])
        return 0;
    if (r->n == FR_RECENT)
        r->known[r->ids[r->next]] = 0;
    else
        r->n++;
    r->ids[r->next] = token;
    r->next = (r->next + 1) % FR_RECENT;
    r->known[token] = 1;
    return 1;
}

static int by_id(const void *a, const void *b)
{
    return *(const int32_t *)a - *(const int32_t *)b;
}

static fr_status rebuild(fr_recent_head *r)
{
    const fr_model *m = r->model;
    const fr_matrix *table = &m->head_table;
    memcpy(r->head.tokens, r->ids, (size_t)r->n * sizeof *r->ids);
    qsort(r->head.tokens, (size_t)r->n, sizeof *r->head.tokens, by_id);
    for (int i = 0; i < r->n; i++)
        memcpy(r->rows + (size_t)i * table->row_bytes,
               (const uint8_t *)table->data + (size_t)r->head.tokens[i] * table->row_bytes, table->row_bytes);
    fr_matrix src = *table;
    src.data = r->rows;
    src.rows = r->n;
    m->ops->weight_free(m->dev, &r->head.weight);
    r->head.n = 0;
    FR_TRY(m->ops->weight_new(m->dev, &src, &r->head.weight));
    r->head.n = r->n;
    return FR_OK;
}

void fr_recent_head_note(fr_recent_head *r, const int32_t *tokens, int n)
{
    int n_new = 0;
    for (int i = 0; r->model && i < n; i++)
        n_new += take(r, tokens[i]);
    if (n_new > 0 && rebuild(r) != FR_OK)
        fr_log(FR_LOG_WARN, "guesses without the tokens of the texts: %s", fr_cause());
}
