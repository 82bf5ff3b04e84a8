/* engine_call.c: see engine_call.h. */
#include "engine_call.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "hash.h"

void fr_engine_call_free(fr_engine_call *k)
{
    for (int i = 0; i < k->n_probes; i++) {
        free((int32_t *)k->probes[i].tokens);
        free((int32_t *)k->probes[i].wanted);
    }
    free(k->probes);
    free(k->ids);
    free(k);
}

static fr_status copy_ids(const int32_t *ids, size_t n, int32_t **out)
{
    *out = malloc((n ? n : 1) * sizeof **out);
    if (!*out)
        return fr_no_memory();
    if (n)
        memcpy(*out, ids, n * sizeof **out);
    return FR_OK;
}

static fr_status new_call(fr_call_terms *terms, fr_role role, const int32_t *ids, int n_ids,
                          int chain_base, fr_engine_call **out)
{
    fr_engine_call *k = calloc(1, sizeof *k);
    if (!k)
        return fr_no_memory();
    k->terms = terms;
    k->role = role;
    k->n_ids = k->next_position = k->furthest = n_ids;
    k->chain_base = chain_base;
    fr_status st = copy_ids(ids, (size_t)n_ids, &k->ids);
    if (st != FR_OK) {
        free(k);
        return st;
    }
    *out = k;
    return FR_OK;
}

fr_status fr_engine_call_generate(fr_call_terms *terms, const fr_generate_call *g,
                                  fr_engine_call **out)
{
    FR_TRY(new_call(terms, g->role, g->ids, g->n_ids, g->chain_base, out));
    (*out)->generate = *g;
    return FR_OK;
}

static fr_status copy_probes(fr_engine_call *k, const fr_msg_probe *probes, int n)
{
    k->probes = calloc((size_t)(n ? n : 1), sizeof *k->probes);
    if (!k->probes)
        return fr_no_memory();
    for (; k->n_probes < n; k->n_probes++) {
        const fr_msg_probe *from = &probes[k->n_probes];
        int32_t *tokens = NULL, *wanted = NULL;
        FR_TRY(copy_ids(from->tokens, from->n_tokens, &tokens));
        fr_status st = copy_ids(from->wanted, from->n_wanted, &wanted);
        if (st != FR_OK) {
            free(tokens);
            return st;
        }
        k->probes[k->n_probes] =
            (fr_msg_probe){from->at, tokens, from->n_tokens, wanted, from->n_wanted};
    }
    return FR_OK;
}

fr_status fr_engine_call_verify(fr_call_terms *terms, const fr_verify_call *v, fr_engine_call **out)
{
    fr_engine_call *k = NULL;
    FR_TRY(new_call(terms, FR_ROLE_TARGET, v->ids, v->n_ids, v->chain_base, &k));
    k->verify = 1;
    k->position = v->position;
    fr_status st = copy_probes(k, v->probes, v->n_probes);
    if (st != FR_OK) {
        fr_engine_call_free(k);
        return st;
    }
    *out = k;
    return FR_OK;
}

/* fr_hash over the ids as 4 little-endian bytes each. */
static uint64_t digest_of(const int32_t *ids, int n)
{
    uint64_t h = FR_HASH_INIT;
    for (int i = 0; i < n; i++) {
        uint32_t v = (uint32_t)ids[i];
        const uint8_t raw[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                                (uint8_t)(v >> 24)};
        h = fr_hash(h, raw, sizeof raw);
    }
    return h;
}

fr_msg fr_engine_call_message(const fr_engine_call *k, const fr_group *g, int start)
{
    const fr_sampling *s = &k->terms->sampling;
    const fr_msg_sampling sampling = {.temperature = s->temperature,
                                      .top_p = s->top_p,
                                      .top_k = (uint32_t)s->top_k,
                                      .seed = s->seed,
                                      .sample = s->sample};
    const fr_msg_prefix prefix = {.job = k->terms->job,
                                  .sequence = k->entry->sequence,
                                  .epoch = g->epoch,
                                  .start = (uint32_t)start,
                                  .digest = digest_of(k->ids, start),
                                  .tokens = k->ids + start,
                                  .n_tokens = (size_t)(k->n_ids - start),
                                  .chain_base = (uint32_t)k->chain_base};
    fr_msg m = {0};
    if (k->verify) {
        m.kind = FR_MSG_VERIFY;
        m.body.verify = (fr_msg_verify){.request = k->wire,
                                        .prefix = prefix,
                                        .sampling = sampling,
                                        .position = (uint32_t)k->position,
                                        .probes = k->probes,
                                        .n_probes = (size_t)k->n_probes};
    } else {
        const fr_generate_call *q = &k->generate;
        m.kind = FR_MSG_GENERATE;
        m.body.generate = (fr_msg_generate){.request = k->wire,
                                            .prefix = prefix,
                                            .sampling = sampling,
                                            .max_tokens = (uint32_t)q->max_tokens,
                                            .stop_at_step = q->stop_at_step,
                                            .delimiter = k->terms->delimiter,
                                            .step_from = (uint32_t)q->step_from,
                                            .min_joint_logprob = q->min_joint_logprob,
                                            .stream = q->stream,
                                            .rough = q->rough};
    }
    return m;
}
