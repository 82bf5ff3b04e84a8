/* model_perf.c: `forerun model perf`: how fast a model is on this machine, and how near to the
 * memory's limit. With --draft a small greedy speculation is measured, without cluster or protocol
 * around it. */
#include "model_perf.h"

#include <stdio.h>

#include "check.h"
#include "json_out.h"
#include "machine.h"
#include "model.h"

typedef struct perf_report {
    fr_perf perf;
    int has_spec, context;
    double decode_gb_s, read_gb_s;
    double rss_mb, rss_peak_mb; /* of this rank, after the passes, before draft and read buffer */
} perf_report;

static fr_status add_numbers(cJSON *o, const perf_report *r)
{
    char key[16];
    FR_TRY(fr_json_number(o, "decode_tok_s", r->perf.decode_tok_s));
    if (r->perf.decode_device_ms > 0)
        FR_TRY(fr_json_number(o, "decode_device_ms", r->perf.decode_device_ms));
    FR_TRY(fr_json_number(o, "prefill_tok_s", r->perf.prefill_tok_s));
    cJSON *verify = cJSON_AddObjectToObject(o, "verify_ms");
    for (int i = 0; i < FR_PERF_WIDTHS; i++) {
        snprintf(key, sizeof key, "%d", fr_perf_width[i]);
        FR_TRY(verify ? fr_json_number(verify, key, r->perf.verify_ms[i]) : fr_no_memory());
    }
    FR_TRY(fr_json_number(o, "decode_gb_s", r->decode_gb_s));
    FR_TRY(fr_json_number(o, "read_gb_s", r->read_gb_s));
    cJSON *spec = cJSON_AddObjectToObject(o, "spec_tok_s");
    for (int i = 0; r->has_spec && i < FR_PERF_DEPTHS; i++) {
        snprintf(key, sizeof key, "%d", fr_perf_depth[i]);
        cJSON *depth = spec ? cJSON_AddObjectToObject(spec, key) : NULL;
        FR_TRY(depth ? fr_json_number(depth, "tok_s", r->perf.spec_tok_s[i]) : fr_no_memory());
        FR_TRY(fr_json_number(depth, "tokens_per_pass", r->perf.spec_tokens_per_pass[i]));
    }
    FR_TRY(spec ? fr_json_number(o, "rss_mb", r->rss_mb) : fr_no_memory());
    return fr_json_number(o, "rss_peak_mb", r->rss_peak_mb);
}

static fr_status print_json(const perf_report *r, const fr_session_info *info)
{
    cJSON *o = NULL;
    FR_TRY(fr_json_object(&o));
    fr_status st = add_numbers(o, r);
    if (st == FR_OK)
        st = fr_json_number(o, "load_s", info->load_s);
    if (st == FR_OK)
        st = fr_json_text(o, "backend", info->backend);
    if (st == FR_OK)
        st = fr_json_number(o, "context", r->context);
    if (st == FR_OK)
        st = fr_json_number(o, "ranks", info->n_ranks);
    if (st == FR_OK)
        st = fr_json_number(o, "threads", info->threads);
    if (st == FR_OK)
        st = fr_json_print(o);
    cJSON_Delete(o);
    return st;
}

static void print_text(const perf_report *r, const fr_session_info *info)
{
    printf("%s: %s, %d ranks of %d threads\n", info->model_name, info->backend, info->n_ranks,
           info->threads);
    printf("behind %d positions:\n", r->context);
    printf("decode   %8.1f tok/s  (%.1f GB/s of weights; memory reads at %.1f GB/s)\n",
           r->perf.decode_tok_s, r->decode_gb_s, r->read_gb_s);
    printf("prefill  %8.1f tok/s\n", r->perf.prefill_tok_s);
    printf("memory   %8.0f MB     (%.0f MB at most)\n", r->rss_mb, r->rss_peak_mb);
    printf("load     %8.2f s\n", info->load_s);
    for (int i = 0; i < FR_PERF_WIDTHS; i++)
        printf("verify %2d %7.2f ms\n", fr_perf_width[i], r->perf.verify_ms[i]);
    for (int i = 0; r->has_spec && i < FR_PERF_DEPTHS; i++)
        printf("speculation, %d drafted: %.1f tok/s, %.2f tokens a target pass\n", fr_perf_depth[i],
               r->perf.spec_tok_s[i], r->perf.spec_tokens_per_pass[i]);
}

static fr_status measure_draft(const fr_model_options *o, fr_session *target, perf_report *r)
{
    fr_client_config config;
    char path[PATH_MAX];
    fr_comm *self = NULL;
    fr_session *draft = NULL;
    FR_TRY(fr_client_config_read(&config));
    FR_TRY(fr_client_config_model(&config, o->draft, path, sizeof path));
    FR_TRY(fr_comm_self_open(&self));
    fr_session_options options = {.backend = o->backend,
                                  .gpus = o->draft_gpu,
                                  .threads = o->threads,
                                  .draft_vocab = o->draft_vocab,
                                  .draft_weights = o->draft_weights};
    fr_status st = fr_session_open(path, self, &options, &draft);
    if (st == FR_OK)
        st = fr_perf_speculation(target, draft, &r->perf);
    r->has_spec = st == FR_OK;
    fr_session_close(&draft);
    self->ops->close(&self);
    return st;
}

static fr_status measure(const fr_model_options *o, fr_session *s)
{
    const fr_session_info *info = fr_session_info_of(s);
    perf_report r = {.context = o->context};
    FR_TRY(fr_perf_passes(s, o->context, o->runs, &r.perf));
    r.rss_mb = fr_machine_rss_mb(); /* of this model: what the draft leaves behind does not count */
    r.rss_peak_mb = fr_machine_rss_peak_mb();
    if (o->draft)
        FR_TRY(measure_draft(o, s, &r));
    r.decode_gb_s = r.perf.decode_tok_s * (double)info->weight_bytes * info->n_ranks / 1e9;
    FR_TRY(fr_session_read_gb_s(s, &r.read_gb_s));
    r.read_gb_s *= info->n_ranks;
    if (r.read_gb_s == 0) /* the model is in the host's memory */
        FR_TRY(fr_perf_read_gb_s(info->threads * info->n_ranks, &r.read_gb_s));
    if (o->json)
        return print_json(&r, info);
    print_text(&r, info);
    return FR_OK;
}

static fr_status perf(fr_model_options *o, const char *path)
{
    fr_model_group group = {0};
    int leader = 0;
    FR_TRY(fr_model_group_open(o, path, &group, &leader));
    fr_status st = leader ? measure(o, group.session) : FR_OK;
    fr_model_group_close(&group);
    return st;
}

static const struct argp_option options[] = {
    {"draft", FR_MODEL_DRAFT, "F", 0, "also measure speculation with this draft model", 1},
    {"draft-gpu", FR_MODEL_DRAFT_GPU, "N", 0, "GPU of the draft, counted from 0 (default: the first)", 1},
    {"draft-vocab", FR_MODEL_DRAFT_VOCAB, "N", 0,
     "tokens that the draft chooses from (default 32768 of a vocabulary over 65536); 0: all", 1},
    {"draft-weights", FR_MODEL_DRAFT_WEIGHTS, "file|q4_0", 0,
     "hold the draft's weights as its file has them (default), or quantised to Q4_0", 1},
    {"context", FR_MODEL_CONTEXT, "N", 0,
     "positions behind which decoding and passes are measured (default 64)", 1},
    {"runs", FR_MODEL_RUNS, "N", 0, "runs of which the median counts (default 5)", 1},
    {0}};

const fr_model_command fr_model_perf = {
    .name = "perf",
    .args_doc = "MODEL",
    .n_args = 1,
    .takes_session = 1,
    .options = options,
    .run = perf,
    .doc = "Measures decoding, prompts, passes of several tokens, and speculation.",
};
