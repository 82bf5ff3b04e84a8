/* model_perf.h: the measurements of `forerun model perf`, apart from how they are reported.
 * Sessions are led by the caller. Times are medians. */
#ifndef FR_MODEL_PERF_H
#define FR_MODEL_PERF_H

#include "session.h"

#define FR_PERF_WIDTHS 6 /* of passes that verify: 1, 2, 4, 8, 16, 32 tokens */
#define FR_PERF_DEPTHS 5 /* of drafts: 0, 2, 3, 4, 8 tokens */
extern const int fr_perf_width[FR_PERF_WIDTHS], fr_perf_depth[FR_PERF_DEPTHS];

typedef struct fr_perf {
    double decode_device_ms; /* of one token, on a GPU; 0 on CPUs */
    double decode_tok_s, prefill_tok_s, verify_ms[FR_PERF_WIDTHS];
    double spec_tok_s[FR_PERF_DEPTHS], spec_tokens_per_pass[FR_PERF_DEPTHS];
} fr_perf;

/* decode and verify behind `context` positions, and a prompt. FR_EINVAL when the model has fewer. */
fr_status fr_perf_passes(fr_session *s, int context, int runs, fr_perf *out);
/* Greedy speculation of `draft` for `target` at each depth. Both have one tokenizer:
 * FR_EMISMATCH. */
fr_status fr_perf_speculation(fr_session *target, fr_session *draft, fr_perf *out);
/* How fast n_threads threads together read memory, in GB/s: the limit of decoding. */
fr_status fr_perf_read_gb_s(int n_threads, double *out);

#endif
