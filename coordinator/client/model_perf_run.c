/* model_perf_run.c: see model_perf.h. */
#include "model_perf.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "clock.h"
#include "model.h"

#define DECODE_TOKENS 32
#define PREFILL_TOKENS 256
#define SPEC_TOKENS 96
#define MAX_DEPTH 8
#define READ_BYTES ((size_t)512 << 20)
#define READ_RUNS 5
#define HUGE_PAGE ((size_t)2 << 20)

const int fr_perf_width[FR_PERF_WIDTHS] = {1, 2, 4, 8, 16, 32};
const int fr_perf_depth[FR_PERF_DEPTHS] = {0, 2, 3, 4, 8};

static const char sample_question[] = "A bakery sells 48 loaves in the morning and half as many in "
                                      "the afternoon. Each loaf costs 3 dollars. The "
                                      "ingredients of a loaf cost 1 dollar, and the rent of the "
                                      "shop is 60 dollars a day. How much money is left at "
                                      "the end of the day? Please reason step by step.";

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* The sample question as a prompt; repeated until there are n tokens when n is not 0. */
static fr_status sample_tokens(const fr_session *s, size_t n, fr_ids *out)
{
    const fr_tokenizer *t = fr_session_tokenizer(s);
    fr_buf prompt = {0};
    fr_status st = fr_chat_prompt(fr_tokenizer_chat_style(t), NULL, sample_question, &prompt);
    do {
        if (st == FR_OK)
            st = fr_tokenize_prompt(t, (const char *)prompt.data, prompt.len, out);
    } while (st == FR_OK && out->len < n);
    fr_buf_free(&prompt);
    return st;
}

/* One pass that appends tokens [n] and asks about the last `asked` rows; their winners go to own
 * [asked]. */
static fr_status step(fr_session *s, int seq, const int32_t *tokens, int n, int asked, int32_t *own)
{
    int row = 0, answers[MAX_DEPTH + 64];
    fr_row_query query = fr_model_greedy_query(s);
    fr_pass_begin(s);
    FR_TRY(fr_pass_append(s, seq, tokens, n, &row));
    for (int i = 0; i < asked; i++)
        FR_TRY(fr_pass_ask(s, row + n - asked + i, &query, &answers[i]));
    FR_TRY(fr_pass_run(s));
    for (int i = 0; i < asked; i++)
        own[i] = fr_pass_answer(s, answers[i])->winner;
    return FR_OK;
}

/* A prompt in as many passes as it takes; *next_out is the model's token after it. */
static fr_status feed(fr_session *s, int seq, const int32_t *tokens, int n, int32_t *next_out)
{
    int room = fr_session_info_of(s)->max_rows;
    for (int at = 0; at < n; at += room)
        FR_TRY(step(s, seq, tokens + at, n - at < room ? n - at : room, 1, next_out));
    return FR_OK;
}

/* `context` tokens are in the sequence before and after. */
static fr_status measure_decode(fr_session *s, int seq, const int32_t *tokens, int context,
                                fr_perf *out)
{
    double seconds[DECODE_TOKENS], device_ms[DECODE_TOKENS];
    int32_t next = 0;
    FR_TRY(feed(s, seq, tokens, context, &next));
    for (int i = 0; i < DECODE_TOKENS; i++) {
        double start = fr_now_s();
        FR_TRY(step(s, seq, &next, 1, 1, &next));
        seconds[i] = fr_now_s() - start;
        FR_TRY(fr_session_device_ms(s, &device_ms[i]));
    }
    out->decode_tok_s = 1 / median(seconds, DECODE_TOKENS);
    out->decode_device_ms = median(device_ms, DECODE_TOKENS);
    return fr_seq_truncate(s, seq, context);
}

/* The widths take turns, so that a machine that slows down meanwhile slows all of them. seconds
 * [FR_PERF_WIDTHS * runs]. */
static fr_status measure_verify(fr_session *s, int seq, const int32_t *tokens, int runs,
                                double *seconds, fr_perf *out)
{
    int context = fr_seq_len(s, seq);
    int32_t own[64];
    for (int r = 0; r < runs; r++)
        for (int w = 0; w < FR_PERF_WIDTHS; w++) {
            int n = fr_perf_width[w];
            double start = fr_now_s();
            FR_TRY(step(s, seq, tokens + context, n, n, own));
            seconds[w * runs + r] = fr_now_s() - start;
            FR_TRY(fr_seq_truncate(s, seq, context));
        }
    for (int w = 0; w < FR_PERF_WIDTHS; w++)
        out->verify_ms[w] = 1e3 * median(seconds + w * runs, runs);
    return FR_OK;
}

static fr_status measure_prefill(fr_session *s, const int32_t *tokens, int n, int runs,
                                 double *seconds, fr_perf *out)
{
    for (int r = 0; r < runs; r++) {
        int seq = -1;
        int32_t next = 0;
        FR_TRY(fr_seq_new(s, &seq));
        double start = fr_now_s();
        fr_status st = feed(s, seq, tokens, n, &next);
        seconds[r] = fr_now_s() - start;
        fr_seq_free(s, seq);
        FR_TRY(st);
    }
    out->prefill_tok_s = n / median(seconds, runs);
    return FR_OK;
}

static fr_status measure_passes(fr_session *s, const fr_ids *tokens, int context, int runs,
                                double *seconds, fr_perf *out)
{
    int seq = -1, n = PREFILL_TOKENS, most = fr_session_info_of(s)->max_context;
    int widest = fr_perf_width[FR_PERF_WIDTHS - 1];
    if (context + widest > most)
        return fr_fail(FR_EINVAL, "a context of %d and passes of %d tokens: the model has %d positions", context,
                       widest, most);
    FR_TRY(fr_seq_new(s, &seq));
    fr_status st = measure_decode(s, seq, tokens->data, context, out);
    if (st == FR_OK)
        st = measure_verify(s, seq, tokens->data, runs, seconds, out);
    fr_seq_free(s, seq);
    FR_TRY(st);
    return measure_prefill(s, tokens->data, n < most ? n : most, runs, seconds, out);
}

fr_status fr_perf_passes(fr_session *s, int context, int runs, fr_perf *out)
{
    fr_ids tokens = {0};
    double *seconds = calloc((size_t)runs * FR_PERF_WIDTHS, sizeof *seconds);
    int widest = fr_perf_width[FR_PERF_WIDTHS - 1];
    int n = context + widest > PREFILL_TOKENS ? context + widest : PREFILL_TOKENS;
    fr_status st = seconds ? sample_tokens(s, (size_t)n, &tokens) : fr_no_memory();
    if (st == FR_OK)
        st = measure_passes(s, &tokens, context, runs, seconds, out);
    fr_ids_free(&tokens);
    free(seconds);
    return st;
}

/* --- speculation --- */

typedef struct speculation {
    fr_session *target, *draft;
    int target_seq, draft_seq;
    fr_ids chain;   /* prompt and text; the last token is not in the target's cache yet */
    int n_passes;
} speculation;

/* The draft's guess of the token behind tokens [n], which join its sequence. */
static fr_status guess(speculation *x, const int32_t *tokens, int n, int32_t *out)
{
    int row = 0, answer = 0;
    fr_row_query query = fr_model_greedy_query(x->draft);
    fr_pass_begin(x->draft);
    FR_TRY(fr_pass_append(x->draft, x->draft_seq, tokens, n, &row));
    FR_TRY(fr_pass_ask_rough(x->draft, row + n - 1, &query, &answer));
    FR_TRY(fr_pass_run(x->draft));
    *out = fr_pass_answer(x->draft, answer)->winner;
    return FR_OK;
}

/* Lets the draft catch up with the chain and write `depth` tokens. */
static fr_status write_draft(speculation *x, int depth, int32_t *drafted)
{
    int have = fr_seq_len(x->draft, x->draft_seq);
    FR_TRY(guess(x, x->chain.data + have, (int)x->chain.len - have, drafted));
    for (int i = 1; i < depth; i++)
        FR_TRY(guess(x, &drafted[i - 1], 1, &drafted[i]));
    return FR_OK;
}

static fr_status round_of(speculation *x, int depth)
{
    int32_t fed[MAX_DEPTH + 1], own[MAX_DEPTH + 1];
    int kept = 0, len = (int)x->chain.len;
    if (depth > 0)
        FR_TRY(write_draft(x, depth, fed + 1));
    fed[0] = x->chain.data[len - 1];
    FR_TRY(step(x->target, x->target_seq, fed, depth + 1, depth + 1, own));
    x->n_passes++;
    while (kept < depth && own[kept] == fed[kept + 1])
        kept++;
    FR_TRY(fr_ids_put(&x->chain, own, (size_t)kept + 1)); /* the last of them is the target's own */
    FR_TRY(fr_seq_truncate(x->target, x->target_seq, len + kept));
    int drafted = depth > 0 ? fr_seq_len(x->draft, x->draft_seq) : 0;
    return drafted > len + kept ? fr_seq_truncate(x->draft, x->draft_seq, len + kept) : FR_OK;
}

static fr_status speculate(speculation *x, int depth, double *tok_s, double *tokens_per_pass)
{
    int32_t next = 0;
    int prompt = (int)x->chain.len;
    FR_TRY(fr_seq_new(x->target, &x->target_seq));
    FR_TRY(fr_seq_new(x->draft, &x->draft_seq));
    FR_TRY(feed(x->draft, x->draft_seq, x->chain.data, prompt, &next));
    FR_TRY(feed(x->target, x->target_seq, x->chain.data, prompt, &next));
    FR_TRY(fr_ids_put(&x->chain, &next, 1));
    x->n_passes = 0;
    double start = fr_now_s();
    int first = (int)x->chain.len;
    while ((int)x->chain.len - first < SPEC_TOKENS)
        FR_TRY(round_of(x, depth));
    int n = (int)x->chain.len - first;
    *tok_s = n / (fr_now_s() - start);
    *tokens_per_pass = (double)n / x->n_passes;
    return FR_OK;
}

fr_status fr_perf_speculation(fr_session *target, fr_session *draft, fr_perf *out)
{
    if (fr_session_info_of(target)->tokenizer_digest != fr_session_info_of(draft)->tokenizer_digest)
        return fr_fail(
            FR_EMISMATCH, "%s and %s have different tokenizers: no token speculation between them",
            fr_session_info_of(target)->model_name, fr_session_info_of(draft)->model_name);
    for (int d = 0; d < FR_PERF_DEPTHS; d++) {
        speculation x = {.target = target, .draft = draft, .target_seq = -1, .draft_seq = -1};
        fr_status st = sample_tokens(target, 0, &x.chain);
        if (st == FR_OK)
            st =
                speculate(&x, fr_perf_depth[d], &out->spec_tok_s[d], &out->spec_tokens_per_pass[d]);
        if (x.target_seq >= 0)
            fr_seq_free(target, x.target_seq);
        if (x.draft_seq >= 0)
            fr_seq_free(draft, x.draft_seq);
        fr_ids_free(&x.chain);
        FR_TRY(st);
    }
    return FR_OK;
}

/* --- memory --- */

typedef struct reader {
    pthread_t thread;
    const uint64_t *data;
    size_t n; /* words, a multiple of 8 */
    uint64_t sum;
} reader;

/* In vector registers, four sums at once: a word at a time, the adding would take longer than the
 * reading. */
typedef uint64_t pair __attribute__((vector_size(16)));

static void *read_all(void *arg)
{
    reader *r = arg;
    const pair *data = (const pair *)r->data;
    pair a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i < r->n / 2; i += 4) {
        a += data[i];
        b += data[i + 1];
        c += data[i + 2];
        d += data[i + 3];
    }
    a += b + c + d;
    r->sum = a[0] + a[1];
    return NULL;
}

/* One reading by all threads; the sum keeps the compiler from leaving it out. */
static fr_status read_once(reader *readers, int n, uint64_t want)
{
    uint64_t sum = 0;
    int started = 0;
    while (started < n &&
           pthread_create(&readers[started].thread, NULL, read_all, &readers[started]) == 0)
        started++;
    for (int i = 0; i < started; i++) {
        pthread_join(readers[i].thread, NULL);
        sum += readers[i].sum;
    }
    if (started < n)
        return fr_fail(FR_ELIMIT, "cannot start %d threads", n);
    return sum == want ? FR_OK : fr_fail(FR_EIO, "memory read back a wrong sum");
}

fr_status fr_perf_read_gb_s(int n_threads, double *out)
{
    size_t n = READ_BYTES / sizeof(uint64_t), share = n / (size_t)n_threads / 8 * 8;
    uint64_t *data = aligned_alloc(HUGE_PAGE, READ_BYTES);
    reader *readers = calloc((size_t)n_threads, sizeof *readers);
    double seconds[READ_RUNS];
    fr_status st = data && readers ? FR_OK : fr_no_memory();
    if (data) /* as the weights have them; only advice */
        (void)madvise(data, READ_BYTES, MADV_HUGEPAGE);
    for (size_t i = 0; st == FR_OK && i < n; i++)
        data[i] = 1; /* also brings every page into being */
    for (int i = 0; st == FR_OK && i < n_threads; i++)
        readers[i] = (reader){.data = data + (size_t)i * share, .n = share};
    for (int r = 0; st == FR_OK && r < READ_RUNS; r++) {
        double start = fr_now_s();
        st = read_once(readers, n_threads, share * (size_t)n_threads);
        seconds[r] = fr_now_s() - start;
    }
    if (st == FR_OK)
        *out = (double)(share * sizeof(uint64_t)) * n_threads / 1e9 / median(seconds, READ_RUNS);
    free(readers);
    free(data);
    return st;
}
