/* session.c: the engine's door. The leader turns appends, branches and questions into a plan (plan.h), sends it to the
 * followers, and runs it with them (forward.h). Followers only obey.
 *
 * A pass that fails on one rank ends the group: the others may be waiting for it, and are told why. The caller can only
 * close the session then. The leader's own sequences are put back as they were. */
#include "session.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "clock.h"
#include "comm_device.h"
#include "comm_roll.h"
#include "cpu_place.h"
#include "forward.h"
#include "grow.h"
#include "hash.h"
#include "log.h"
#include "memory_need.h"
#include "rank_facts.h"
#include "utf8.h"

/* A sequence's length before this pass, to undo it. */
typedef struct undo {
    int seq, len;
} undo;

struct fr_session {
    fr_comm *comm;          /* borrowed, or `over` */
    fr_comm *over;          /* over the borrowed one, where the device needs it (comm_device.h) */
    const fr_ops *ops;
    fr_place place;
    fr_device *dev;
    fr_rank_facts *facts;   /* [ranks] */
    fr_model_file *file;
    fr_config config;
    fr_ids rough_tokens;    /* of the rough head, on all ranks together; empty: there is none */
    fr_model *model;
    fr_tokenizer *tokenizer;
    fr_forward forward;
    fr_session_info info;
    /* leader only */
    fr_kv_cache *cache;
    fr_plan plan;
    fr_buf command;
    fr_row_answer *answers; /* [cap_answers] */
    int cap_answers;
    int32_t *branch_pages;  /* taken by this pass */
    int n_branch_pages, cap_branch_pages;
    undo *undos;
    int n_undos, cap_undos;
};

/* ---- opening */

fr_status fr_session_check_ranks(const char *model_path, int n_ranks)
{
    fr_model_file *file = NULL;
    fr_config shape;
    fr_slice slice;
    FR_TRY(fr_model_file_open(model_path, &file));
    fr_status st = fr_config_read(file, &shape);
    if (st == FR_OK)
        st = fr_config_split(&shape, fr_model_file_name(file), 0, n_ranks, &slice);
    fr_model_file_close(&file);
    return st;
}

#define DEFAULT_MAX_ROWS 256
#define DEFAULT_KV_POSITIONS (64 * 1024)

/* Before the device is opened: its threads inherit the place, and all memory from there on, weights and KV cache too,
 * is touched first by them or this thread. Ranks that the launcher bound apart have their places already. */
static void enter_place(fr_session *s, const fr_session_options *o)
{
    const fr_comm *c = s->comm;
    const fr_place_wish wish = {.rank = c->here, .n_ranks = c->n_alike, .threads = o->threads,
                                .bind = o->place && c->n_alike == c->n_here};
    fr_place_enter(&wish, &s->place);
}

/* The same file held otherwise answers otherwise, so it is another model. */
static uint64_t digest_of(uint64_t file_digest, fr_draft_weights weights)
{
    const uint8_t held = (uint8_t)weights;
    return weights == FR_DRAFT_WEIGHTS_FILE ? file_digest : fr_hash(file_digest, &held, 1);
}

static fr_status cache_positions(const fr_session_options *o, int context, int64_t *out)
{
    int64_t positions = o->kv_positions;
    if (positions <= 0)
        positions = 2 * (int64_t)context < DEFAULT_KV_POSITIONS ? 2 * (int64_t)context : DEFAULT_KV_POSITIONS;
    if (positions > INT32_MAX / 2)
        return fr_fail(FR_EINVAL, "a KV cache of %lld positions is too large", (long long)positions);
    *out = (positions + FR_PAGE - 1) / FR_PAGE * FR_PAGE;
    return FR_OK;
}

/* How large everything will be. */
static fr_status size_up(fr_session *s, const char *path, const fr_session_options *o)
{
    FR_TRY(fr_config_read(s->file, &s->config));
    const int context = s->config.context, size = fr_draft_vocab_size(s->tokenizer, o->draft_vocab);
    s->info.max_context = o->max_context > 0 && o->max_context < context ? o->max_context : context;
    s->info.max_rows = o->max_rows > 0 ? o->max_rows : DEFAULT_MAX_ROWS;
    FR_TRY(cache_positions(o, s->info.max_context, &s->info.kv_positions));
    return size > 0 ? fr_draft_vocab_read(path, s->tokenizer, size, &s->rough_tokens) : FR_OK;
}

static const char *base_name(const fr_session *s)
{
    const char *name = fr_model_file_name(s->file), *base = strrchr(name, '/');
    return base ? base + 1 : name;
}

static fr_status state_facts(fr_session *s, const fr_session_options *o)
{
    s->facts = calloc((size_t)s->comm->size, sizeof *s->facts);
    if (!s->facts)
        return fr_no_memory();
    fr_rank_facts *mine = &s->facts[s->comm->rank];
    *mine = (fr_rank_facts){.file_digest = fr_model_file_digest(s->file),
                            .rough_digest = fr_hash(FR_HASH_INIT, s->rough_tokens.data,
                                                    s->rough_tokens.len * sizeof *s->rough_tokens.data),
                            .max_context = s->info.max_context, .kv_positions = s->info.kv_positions,
                            .max_rows = s->info.max_rows, .n_rough = (int64_t)s->rough_tokens.len,
                            .draft_weights = o->draft_weights, .share_gpu = o->share_gpu,
                            .batch_dependent = o->batch_dependent};
    snprintf(mine->backend, sizeof mine->backend, "%s", s->ops->name);
    snprintf(mine->model, sizeof mine->model, "%.63s", base_name(s));
    return s->ops->device_id ? s->ops->device_id(s->dev, mine->device) : FR_OK;
}

/* What each rank does by itself: there is no collective in it, nor in load(). */
static fr_status open_device(fr_session *s, const char *path, const fr_session_options *o)
{
    FR_TRY(fr_ops_choose(o->backend, &s->ops));
    FR_TRY(fr_model_file_open(path, &s->file));
    FR_TRY(fr_tokenizer_from_model(s->file, &s->tokenizer));
    FR_TRY(size_up(s, path, o));
    enter_place(s, o);
    const fr_device_options dev = {.threads = s->place.threads, .local_rank = s->comm->here,
                                   .gpus = o->gpus, .batch_dependent = o->batch_dependent};
    FR_TRY(s->ops->open(&dev, &s->dev));
    return state_facts(s, o);
}

/* From here on s->comm sums, gathers and broadcasts memory of the device. All ranks. */
static fr_status enter_group(fr_session *s, const fr_session_options *o)
{
    _Static_assert(sizeof *s->facts <= FR_COMM_SMALL, "no rank may fail alone");
    const fr_rank_facts mine = s->facts[s->comm->rank];
    bool shares = false;
    FR_TRY(s->comm->ops->all_gather(s->comm, &mine, sizeof mine, s->facts, 0));
    FR_TRY(fr_rank_facts_compare(s->facts, s->comm->size, &shares));
    const int connect_ms = o->rank_timeout_ms > FR_COMM_TIMEOUT_MS ? o->rank_timeout_ms : FR_COMM_TIMEOUT_MS;
    const fr_comm_device_options options = {.share_gpu = shares, .batch_invariant = !o->batch_dependent,
                                            .max_sum = (size_t)s->info.max_rows * (size_t)s->config.dim,
                                            .max_gather = FR_FORWARD_ANSWERS,
                                            .connect_ms = connect_ms, .timeout_ms = o->rank_timeout_ms};
    FR_TRY(fr_comm_device_open(s->comm, s->ops, s->dev, &options, &s->over));
    if (s->over)
        s->comm = s->over;
    return FR_OK;
}

/* A program that could use a GPU and finds none, or none it can use, works on the CPU; the user may have thought
 * otherwise. Told once in a process, which may open more sessions, and by one rank. */
static void tell_of_no_gpu(void)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    for (const fr_ops *const *ops = fr_ops_all(); *ops; ops++)
        if (!(*ops)->host_memory && fr_ops_usable(*ops) != FR_OK && !atomic_flag_test_and_set(&told))
            fr_log(FR_LOG_WARN, "computing on the CPU: %s", fr_cause());
}

/* Rank 0, when all ranks are known to be told the same. Of choices too, each is told once in a process. */
static void tell_of_cpu(const fr_session *s, const fr_session_options *o)
{
    enum { CHOICES = 3 };
    static atomic_bool told[CHOICES];
    if (!s->ops->host_memory)
        return;
    if (!o->backend)
        tell_of_no_gpu();
    const struct {
        bool given;
        const char *name;
    } choices[CHOICES] = {{o->gpus.n > 0, "a choice of GPUs"}, /* --gpus, or of a draft --draft-gpu */
                          {o->share_gpu, "--share-gpu"},
                          {o->batch_dependent, "--batch-invariant off"}};
    for (int i = 0; i < CHOICES; i++)
        if (choices[i].given && !atomic_exchange(&told[i], true))
            fr_log(FR_LOG_WARN, "computing on the CPU: %s means nothing there", choices[i].name);
}

static fr_memory_load load_of(const fr_session *s, const fr_session_options *o)
{
    return (fr_memory_load){.file = s->file, .config = &s->config, .ops = s->ops, .n_ranks = s->comm->size,
                            .n_rough = (int)s->rough_tokens.len, .weights = o->draft_weights,
                            .kv_positions = s->info.kv_positions, .max_rows = s->info.max_rows,
                            .max_context = s->info.max_context};
}

/* Before anything is loaded. Ranks that share a device share what is free there. */
static fr_status check_memory(const fr_session *s, const fr_memory_load *l)
{
    size_t room = 0, total = 0;
    if (!s->ops->mem_info)
        return FR_OK;
    int sharing = 0;
    for (int r = 0; r < s->comm->size; r++)
        sharing += memcmp(s->facts[r].device, s->facts[s->comm->rank].device, FR_DEVICE_ID) == 0;
    FR_TRY(s->ops->mem_info(s->dev, &room, &total));
    return fr_memory_check(l, (int64_t)room / sharing);
}

/* No rank looks at what is free before all have reserved, nor loads before all have looked: they may share it. */
static fr_status make_room(fr_session *s, const fr_session_options *o)
{
    const fr_memory_load l = load_of(s, o);
    FR_TRY(s->comm->ops->agree(s->comm, fr_memory_reserve(&l, s->dev, s->comm->rank)));
    return s->comm->ops->agree(s->comm, check_memory(s, &l));
}

static fr_status load(fr_session *s, const fr_session_options *o)
{
    fr_comm *comm = s->comm;
    const fr_model_load_options how = {.rank = comm->rank, .n_ranks = comm->size, .rough_tokens = &s->rough_tokens,
                                       .weights = o->draft_weights};
    const int context = s->info.max_context, max_rows = s->info.max_rows;
    const int n_pages = (int)(s->info.kv_positions / FR_PAGE);
    FR_TRY(fr_model_load(s->file, s->ops, s->dev, &how, &s->model));
    const fr_config *c = &s->model->config;
    FR_TRY(fr_forward_open(&s->forward, s->model, comm, max_rows, n_pages));
    if (comm->rank == 0)
        FR_TRY(fr_kv_cache_new(n_pages, context, &s->cache));
    s->info = (fr_session_info){
        .model_digest = digest_of(s->facts[comm->rank].file_digest, o->draft_weights),
        .tokenizer_digest = fr_tokenizer_digest(s->tokenizer),
        .n_layers = c->n_layers, .dim = c->dim, .n_vocab = c->n_vocab, .max_context = context,
        .max_rows = max_rows, .n_ranks = comm->size, .threads = s->place.threads,
        .kv_positions = (int64_t)n_pages * FR_PAGE, .backend = s->ops->name,
        .batch_dependent = o->batch_dependent && !s->ops->host_memory, .weight_bytes = s->model->weight_bytes,
        .draft_vocab = s->model->rough_vocab};
    static const char *const arch[] = {"llama", "qwen2", "qwen3"};
    snprintf(s->info.architecture, sizeof s->info.architecture, "%s", arch[c->arch]);
    const char *name = c->name[0] ? c->name : base_name(s);
    snprintf(s->info.model_name, sizeof s->info.model_name, "%.*s",
             (int)fr_utf8_cut(name, strlen(name), sizeof s->info.model_name - 1), name);
    return FR_OK;
}

fr_status fr_session_begin(const char *model_path, fr_comm *comm, const fr_session_options *options,
                           fr_session **out)
{
    double start = fr_now_s();
    fr_session *s = calloc(1, sizeof *s);
    fr_status st = s ? FR_OK : fr_no_memory();
    if (s) {
        s->comm = comm;
        st = open_device(s, model_path, options);
    }
    FR_TRY_GOTO(st, comm->ops->agree(comm, st), fail);
    FR_TRY_GOTO(st, enter_group(s, options), fail);
    if (comm->rank == 0)
        tell_of_cpu(s, options);
    FR_TRY_GOTO(st, make_room(s, options), fail);
    FR_TRY_GOTO(st, s->comm->ops->agree(s->comm, load(s, options)), fail);
    s->info.load_s = fr_now_s() - start;
    *out = s;
    return FR_OK;
fail:
    if (s)
        s->comm = NULL; /* nobody follows: there is no one to release */
    *out = s;
    return st;
}

fr_status fr_session_open(const char *model_path, fr_comm *comm, const fr_session_options *options,
                          fr_session **out)
{
    fr_session *s = NULL;
    fr_status st = fr_session_begin(model_path, comm, options, &s);
    if (st == FR_OK)
        *out = s;
    else
        fr_session_close(&s);
    return st;
}

void fr_session_close(fr_session **p)
{
    fr_session *s = *p;
    if (!s)
        return;
    if (s->comm && s->comm->rank == 0 && fr_plan_encode(FR_COMMAND_CLOSE, NULL, &s->command) == FR_OK)
        s->comm->ops->command_send(s->comm, s->command.data, s->command.len);
    if (s->over) /* before what was summed goes: NCCL may have shown it to other ranks' GPUs */
        s->over->ops->close(&s->over);
    fr_forward_close(&s->forward);
    fr_model_free(&s->model);
    if (s->dev)
        s->ops->close(&s->dev);
    fr_place_leave(&s->place);
    fr_ids_free(&s->rough_tokens);
    fr_tokenizer_free(&s->tokenizer);
    fr_model_file_close(&s->file);
    fr_kv_cache_free(&s->cache);
    fr_plan_free(&s->plan);
    fr_buf_free(&s->command);
    free(s->answers);
    free(s->branch_pages);
    free(s->undos);
    free(s->facts);
    free(s);
    *p = NULL;
}

/* The other ranks learn why this one ends. A cause that came from another rank names that one. */
static fr_status give_up(fr_session *s, fr_status st)
{
    char cause[512];
    if (s->comm->size == 1)
        return st;
    if (st != FR_EPEER) {
        fr_comm_name_finder(s->comm->rank, cause, sizeof cause);
        fr_fail(st, "%s", cause);
    }
    s->comm->ops->give_up(s->comm);
    return st;
}

fr_status fr_session_follow(fr_session *s)
{
    const fr_plan_bounds bounds = {.n_pages = (int)(s->info.kv_positions / FR_PAGE), .context = s->info.max_context,
                                   .n_vocab = s->info.n_vocab, .has_rough_head = s->info.draft_vocab > 0};
    for (;;) {
        const void *data = NULL;
        size_t n = 0;
        fr_command command = 0;
        fr_status st = s->comm->ops->command_wait(s->comm, &data, &n);
        if (st == FR_OK)
            st = fr_plan_decode(data, n, &command, &s->plan);
        if (st == FR_OK && command == FR_COMMAND_CLOSE)
            return FR_OK;
        if (st == FR_OK)
            st = fr_plan_check(&s->plan, &bounds);
        if (st == FR_OK)
            st = fr_forward_run(&s->forward, &s->plan, NULL);
        if (st != FR_OK)
            return give_up(s, st);
    }
}

fr_status fr_session_check_group(fr_session *s)
{
    const fr_status st = s->comm->ops->look ? s->comm->ops->look(s->comm) : FR_OK;
    return st == FR_OK ? FR_OK : give_up(s, st);
}

void fr_session_on_progress(fr_session *s, void (*progress)(void *ctx), void *ctx)
{
    s->forward.progress = progress;
    s->forward.progress_ctx = ctx;
}

const fr_session_info *fr_session_info_of(const fr_session *s)
{
    return &s->info;
}

fr_status fr_session_device_ms(fr_session *s, double *out)
{
    *out = 0;
    return s->ops->device_ms ? s->ops->device_ms(s->dev, out) : FR_OK;
}

fr_status fr_session_read_gb_s(fr_session *s, double *out)
{
    *out = 0;
    return s->ops->read_gb_s ? s->ops->read_gb_s(s->dev, out) : FR_OK;
}

const fr_tokenizer *fr_session_tokenizer(const fr_session *s)
{
    return s->tokenizer;
}

/* ---- sequences */

fr_status fr_seq_new(fr_session *s, int *seq_out)
{
    return fr_kv_seq_new(s->cache, seq_out);
}

fr_status fr_seq_fork(fr_session *s, int seq, int n_positions, int *seq_out)
{
    return fr_kv_seq_fork(s->cache, seq, n_positions, seq_out);
}

fr_status fr_seq_truncate(fr_session *s, int seq, int n_positions)
{
    return fr_kv_seq_truncate(s->cache, seq, n_positions);
}

void fr_seq_free(fr_session *s, int seq)
{
    fr_kv_seq_free(s->cache, seq);
}

int fr_seq_len(const fr_session *s, int seq)
{
    return fr_kv_seq_len(s->cache, seq);
}

const int32_t *fr_seq_tokens(const fr_session *s, int seq)
{
    return fr_kv_seq_tokens(s->cache, seq);
}

int fr_seq_match(const fr_session *s, const int32_t *tokens, int n, int *n_shared_out)
{
    return fr_kv_match(s->cache, tokens, n, n_shared_out);
}

int64_t fr_session_kv_free(const fr_session *s)
{
    return (int64_t)fr_kv_pages_free(s->cache) * FR_PAGE;
}

/* ---- passes */

static void release_branches(fr_session *s)
{
    fr_kv_pages_put(s->cache, s->branch_pages, s->n_branch_pages);
    s->n_branch_pages = 0;
}

/* Cuts what an abandoned or failed pass appended: its keys were never written. */
static void undo_appends(fr_session *s)
{
    for (int i = 0; i < s->n_undos; i++)
        if (fr_kv_seq_len(s->cache, s->undos[i].seq) > s->undos[i].len)
            fr_kv_seq_truncate(s->cache, s->undos[i].seq, s->undos[i].len);
    s->n_undos = 0;
}

void fr_pass_begin(fr_session *s)
{
    undo_appends(s);
    fr_plan_clear(&s->plan);
    release_branches(s);
}

int fr_pass_room(const fr_session *s)
{
    return s->info.max_rows - s->plan.n_rows;
}

static fr_status check_tokens(const fr_session *s, const int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= s->info.n_vocab)
            return fr_fail(FR_EINVAL, "token id %d is outside the vocabulary of %d", tokens[i], s->info.n_vocab);
    return FR_OK;
}

static fr_status check_room(const fr_session *s, int n)
{
    if (n > fr_pass_room(s))
        return fr_fail(FR_ELIMIT, "%d rows are more than the %d left in this pass", n, fr_pass_room(s));
    return FR_OK;
}

fr_status fr_pass_append(fr_session *s, int seq, const int32_t *tokens, int n, int *first_row_out)
{
    FR_TRY(check_tokens(s, tokens, n));
    FR_TRY(check_room(s, n));
    int from = fr_kv_seq_len(s->cache, seq), n_pages = (from + n) / FR_PAGE + 1;
    FR_TRY(fr_plan_reserve(&s->plan, n, n_pages, 0, 0));
    FR_TRY(fr_grow((void **)&s->undos, &s->cap_undos, s->n_undos + 1, sizeof *s->undos));
    FR_TRY(fr_kv_seq_append(s->cache, seq, tokens, n));
    s->undos[s->n_undos++] = (undo){seq, from};
    fr_plan *p = &s->plan;
    const int32_t *pages = fr_kv_seq_pages(s->cache, seq, &n_pages);
    if (n_pages > 0)
        memcpy(p->pages + p->n_pages, pages, (size_t)n_pages * sizeof *pages);
    *first_row_out = p->n_rows;
    for (int i = 0; i < n; i++) {
        int pos = from + i;
        p->rows[p->n_rows++] = (fr_plan_row){.token = tokens[i], .pos = pos,
                                             .slot = pages[pos / FR_PAGE] * FR_PAGE + pos % FR_PAGE,
                                             .trunk_at = p->n_pages, .n_trunk = pos + 1};
    }
    p->n_pages += n_pages;
    return FR_OK;
}

fr_status fr_pass_branch(fr_session *s, int seq, int n_positions, const int32_t *tokens, int n,
                         int *first_row_out)
{
    FR_TRY(check_tokens(s, tokens, n));
    FR_TRY(check_room(s, n));
    if (n_positions < 0 || n_positions > fr_kv_seq_len(s->cache, seq))
        return fr_fail(FR_EINVAL, "a branch at %d is beyond its sequence of %d positions", n_positions,
                       fr_kv_seq_len(s->cache, seq));
    if (n > s->info.max_context - n_positions)
        return fr_fail(FR_ELIMIT, "%d positions are longer than the context of %d", n_positions + n,
                       s->info.max_context);
    int trunk_pages = (n_positions + FR_PAGE - 1) / FR_PAGE, own = (n + FR_PAGE - 1) / FR_PAGE, all = 0;
    FR_TRY(fr_plan_reserve(&s->plan, n, trunk_pages + own, 0, 0));
    FR_TRY(fr_grow((void **)&s->branch_pages, &s->cap_branch_pages, s->n_branch_pages + own, sizeof *s->branch_pages));
    int32_t *mine = s->branch_pages + s->n_branch_pages;
    FR_TRY(fr_kv_pages_get(s->cache, own, mine));
    s->n_branch_pages += own;
    fr_plan *p = &s->plan;
    const int32_t *trunk = fr_kv_seq_pages(s->cache, seq, &all);
    if (trunk_pages > 0)
        memcpy(p->pages + p->n_pages, trunk, (size_t)trunk_pages * sizeof *trunk);
    if (own > 0)
        memcpy(p->pages + p->n_pages + trunk_pages, mine, (size_t)own * sizeof *mine);
    *first_row_out = p->n_rows;
    for (int i = 0; i < n; i++)
        p->rows[p->n_rows++] = (fr_plan_row){.token = tokens[i], .pos = n_positions + i,
                                             .slot = mine[i / FR_PAGE] * FR_PAGE + i % FR_PAGE,
                                             .trunk_at = p->n_pages, .n_trunk = n_positions,
                                             .branch_at = p->n_pages + trunk_pages, .n_branch = i + 1};
    p->n_pages += trunk_pages + own;
    return FR_OK;
}

static fr_status ask(fr_session *s, int row, int rough, const fr_row_query *query, int *answer_out)
{
    if (row < 0 || row >= s->plan.n_rows)
        return fr_fail(FR_EINVAL, "row %d is not among the %d of this pass", row, s->plan.n_rows);
    if (query->n_top < 0 || query->n_top > FR_TOP_MAX || query->n_wanted < 0 || query->n_wanted > FR_WANTED_MAX)
        return fr_fail(FR_EINVAL, "a query for %d candidates and %d tokens is over the limits of %d and %d",
                       query->n_top, query->n_wanted, FR_TOP_MAX, FR_WANTED_MAX);
    FR_TRY(fr_plan_reserve(&s->plan, 0, 0, 1, 0));
    FR_TRY(fr_grow((void **)&s->answers, &s->cap_answers, s->plan.n_queries + 1, sizeof *s->answers));
    *answer_out = s->plan.n_queries;
    s->plan.queries[s->plan.n_queries++] = (fr_plan_query){.row = row, .rough = rough, .query = *query};
    return FR_OK;
}

fr_status fr_pass_ask(fr_session *s, int row, const fr_row_query *query, int *answer_out)
{
    return ask(s, row, 0, query, answer_out);
}

fr_status fr_pass_ask_rough(fr_session *s, int row, const fr_row_query *query, int *answer_out)
{
    return ask(s, row, s->model->rough_vocab > 0, query, answer_out);
}

static fr_status run(fr_session *s)
{
    int n_copies = 0;
    const fr_page_copy *copies = fr_kv_copies(s->cache, &n_copies);
    FR_TRY(fr_plan_reserve(&s->plan, 0, 0, 0, n_copies));
    if (n_copies > 0)
        memcpy(s->plan.copies, copies, (size_t)n_copies * sizeof *copies);
    s->plan.n_copies = n_copies;
    if (s->comm->size > 1) {
        FR_TRY(fr_plan_encode(FR_COMMAND_PASS, &s->plan, &s->command));
        FR_TRY(s->comm->ops->command_send(s->comm, s->command.data, s->command.len));
    }
    fr_status st = fr_forward_run(&s->forward, &s->plan, s->answers);
    if (st != FR_OK)
        return give_up(s, st);
    fr_kv_copies_clear(s->cache);
    return FR_OK;
}

fr_status fr_pass_run(fr_session *s)
{
    if (s->plan.n_rows == 0)
        return FR_OK;
    fr_status st = run(s);
    if (st != FR_OK)
        undo_appends(s);
    s->n_undos = 0;
    release_branches(s);
    return st;
}

const fr_row_answer *fr_pass_answer(const fr_session *s, int answer)
{
    return answer >= 0 && answer < s->plan.n_queries ? &s->answers[answer] : NULL;
}
