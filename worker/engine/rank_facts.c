/* rank_facts.c: see rank_facts.h. */
#include "rank_facts.h"

#include <inttypes.h>
#include <string.h>

#include "check.h"
#include "draft_weights.h"

/* What follows holds rank r against rank 0. */
static fr_status compare_models(const fr_rank_facts *a, int r, const fr_rank_facts *first)
{
    if (a->file_digest != first->file_digest)
        return fr_fail(FR_EMISMATCH,
                       "rank %d has another model (%s, digest %016" PRIx64 ") than rank 0 (%s, %016" PRIx64 ")", r,
                       a->model, a->file_digest, first->model, first->file_digest);
    if (a->draft_weights != first->draft_weights)
        return fr_fail(FR_EMISMATCH, "rank %d holds its weights as %s, rank 0 as %s (--draft-weights)", r,
                       fr_draft_weights_name((fr_draft_weights)a->draft_weights),
                       fr_draft_weights_name((fr_draft_weights)first->draft_weights));
    return FR_OK;
}

static fr_status compare_sizes(const fr_rank_facts *a, int r, const fr_rank_facts *first)
{
    const struct {
        const char *what, *unit, *option;
        int64_t here, there;
    } sizes[] = {{"a context", "positions", "--context", a->max_context, first->max_context},
                 {"a KV cache", "positions", "--kv-positions", a->kv_positions, first->kv_positions},
                 {"passes", "rows", "--max-rows", a->max_rows, first->max_rows},
                 {"a rough head", "tokens", "--draft-vocab", a->n_rough, first->n_rough}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].here != sizes[i].there)
            return fr_fail(FR_EMISMATCH, "rank %d has %s of %" PRId64 " %s, rank 0 of %" PRId64 " (%s)", r,
                           sizes[i].what, sizes[i].here, sizes[i].unit, sizes[i].there, sizes[i].option);
    if (a->rough_digest != first->rough_digest)
        return fr_fail(FR_EMISMATCH, "rank %d has other tokens in its rough head than rank 0: the model's list of "
                       "frequent tokens differs", r);
    return FR_OK;
}

static fr_status compare_ways(const fr_rank_facts *a, int r, const fr_rank_facts *first)
{
    if (a->share_gpu != first->share_gpu)
        return fr_fail(FR_EMISMATCH, "rank %d %s share a GPU, rank 0 %s (--share-gpu)", r,
                       a->share_gpu ? "may" : "may not", first->share_gpu ? "may" : "may not");
    if (a->batch_dependent != first->batch_dependent)
        return fr_fail(FR_EMISMATCH, "rank %d has --batch-invariant %s, rank 0 %s", r,
                       a->batch_dependent ? "off" : "on", first->batch_dependent ? "off" : "on");
    return FR_OK;
}

static fr_status find_shared(const fr_rank_facts *ranks, int r, bool *shared_out)
{
    static const uint8_t none[FR_DEVICE_ID];
    const fr_rank_facts *a = &ranks[r];
    for (int other = 0; other < r && memcmp(a->device, none, sizeof none) != 0; other++) {
        if (memcmp(a->device, ranks[other].device, sizeof a->device) != 0)
            continue;
        *shared_out = true;
        if (!a->share_gpu)
            return fr_fail(FR_EINVAL, "ranks %d and %d have the same GPU: start fewer, name more GPUs (--gpus), or let "
                           "them share (--share-gpu)", other, r);
    }
    return FR_OK;
}

fr_status fr_rank_facts_compare(const fr_rank_facts *ranks, int n, bool *shared_out)
{
    *shared_out = false;
    for (int r = 1; r < n; r++) {
        const fr_rank_facts *a = &ranks[r];
        if (strcmp(a->backend, ranks[0].backend) != 0)
            return fr_fail(FR_EMISMATCH, "rank %d computes by backend %s, rank 0 by %s", r, a->backend,
                           ranks[0].backend);
        FR_TRY(compare_models(a, r, &ranks[0]));
        FR_TRY(compare_sizes(a, r, &ranks[0]));
        FR_TRY(compare_ways(a, r, &ranks[0]));
    }
    for (int r = 1; r < n; r++)
        FR_TRY(find_shared(ranks, r, shared_out));
    return FR_OK;
}
