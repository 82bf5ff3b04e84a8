/* store.c: see store.h. The write queue is a list of whole operations (store_queue.c); this file is
 * the only one that sees SQLite. Statements are prepared at their first use and kept. 64-bit
 * unsigned values are stored as SQLite's signed ones, bit for bit; NaN is NULL. */
#include "store.h"

#include <math.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "store_queue.h"
#include "store_sql.h"

#define LOCK_WAIT_MS 2000 /* a coordinator that is just leaving gets time to let go of the file */

struct fr_store {
    sqlite3 *db;
    char *path; /* for error texts */
    sqlite3_stmt *statements[N_STATEMENTS];
    fr_store_queue queue;
    uint64_t next_job;
    int32_t *ids; /* the step being read: SQLite's blobs are not aligned */
    size_t ids_cap;
};

static fr_status store_fail(const fr_store *s, int rc, const char *doing)
{
    if ((rc & 0xff) == SQLITE_NOMEM)
        return fr_no_memory();
    const char *text = s->db ? sqlite3_errmsg(s->db) : sqlite3_errstr(rc);
    switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return fr_fail(FR_EBUSY, "store %s is in use by another coordinator", s->path);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return fr_fail(FR_EFORMAT, "store %s is damaged or no store: %s", s->path, text);
    case SQLITE_CANTOPEN: /* a wrong path, mostly */
    case SQLITE_READONLY:
        return fr_fail(FR_EINVAL, "store %s: cannot %s: %s", s->path, doing, text);
    default:
        return fr_fail(FR_EIO, "store %s: cannot %s: %s", s->path, doing, text);
    }
}

static fr_status execute(fr_store *s, const char *sql, const char *doing)
{
    int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? FR_OK : store_fail(s, rc, doing);
}

/* A kept statement, ready to bind. */
static fr_status statement(fr_store *s, int which, sqlite3_stmt **out)
{
    if (!s->statements[which]) {
        int rc = sqlite3_prepare_v3(s->db, statement_text[which], -1, SQLITE_PREPARE_PERSISTENT,
                                    &s->statements[which], NULL);
        if (rc != SQLITE_OK)
            return store_fail(s, rc, "prepare a statement");
    }
    *out = s->statements[which];
    return FR_OK;
}

/* Ends a statement's run: its locks and its borrowed parameters. */
static void done_with(sqlite3_stmt *stmt)
{
    sqlite3_reset(stmt);
    sqlite3_clear_bindings(stmt);
}

/* ---- opening */

/* One integer that a pragma or query gives. */
static fr_status ask_int(fr_store *s, const char *sql, int64_t *out)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(s->db, sql, -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    if (rc == SQLITE_ROW)
        *out = sqlite3_column_int64(stmt, 0);
    fr_status st = rc == SQLITE_ROW ? FR_OK : store_fail(s, rc, "read it");
    sqlite3_finalize(stmt);
    return st;
}

static fr_status check_integrity(fr_store *s)
{
    sqlite3_stmt *stmt = NULL;
    int rc = sqlite3_prepare_v2(s->db, "PRAGMA quick_check(1)", -1, &stmt, NULL);
    if (rc == SQLITE_OK)
        rc = sqlite3_step(stmt);
    fr_status st = FR_OK;
    if (rc != SQLITE_ROW) {
        st = store_fail(s, rc, "check it");
    } else {
        const char *text = (const char *)sqlite3_column_text(stmt, 0);
        if (!text || strcmp(text, "ok") != 0)
            st = fr_fail(FR_EFORMAT, "store %s is damaged: %s", s->path, text ? text : "");
    }
    sqlite3_finalize(stmt);
    return st;
}

/* A new file gets the tables; anything else must be a store of this version or an earlier one. */
static fr_status check_schema(fr_store *s)
{
    int64_t application = 0, version = 0, objects = 0;
    FR_TRY(ask_int(s, "SELECT count(*) FROM sqlite_schema", &objects));
    FR_TRY(ask_int(s, "PRAGMA application_id", &application));
    FR_TRY(ask_int(s, "PRAGMA user_version", &version));
    if (objects == 0 && application == 0 && version == 0) {
        char sql[sizeof schema + 128];
        sqlite3_snprintf(sizeof sql, sql,
                         "BEGIN; %s PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT",
                         schema, APPLICATION_ID, VERSION);
        return execute(s, sql, "create the tables");
    }
    if (application != APPLICATION_ID)
        return fr_fail(FR_EFORMAT, "store %s is a database of another program", s->path);
    if (version < 1 || version > VERSION)
        return fr_fail(FR_EUNSUPPORTED, "store %s has version %lld, this program reads version %d",
                       s->path, (long long)version, VERSION);
    FR_TRY(check_integrity(s));
    for (int64_t v = version; v < VERSION; v++)
        FR_TRY(execute(s, upgrade_from[v], "bring it to the next version"));
    return FR_OK;
}

fr_status fr_store_open(const char *path, fr_store **out)
{
    fr_status st = FR_OK;
    fr_store *s = calloc(1, sizeof *s);
    if (!s)
        return fr_no_memory();
    s->path = strdup(path ? path : "in memory");
    if (!s->path) {
        st = fr_no_memory();
        goto fail;
    }
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
    int rc = sqlite3_open_v2(path ? path : ":memory:", &s->db, flags, NULL);
    if (rc != SQLITE_OK) {
        st = store_fail(s, rc, "open it");
        goto fail;
    }
    sqlite3_busy_timeout(s->db, LOCK_WAIT_MS);
    /* Exclusive before the first access: the lock is then held until the file is closed, or the
     * process dies. Nothing is written before it is known to be ours. */
    const char *lock = "PRAGMA locking_mode=EXCLUSIVE; BEGIN IMMEDIATE; COMMIT";
    FR_TRY_GOTO(st, execute(s, lock, "lock it"), fail);
    FR_TRY_GOTO(st, check_schema(s), fail);
    FR_TRY_GOTO(st, execute(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL", "set it up"),
                fail);
    int64_t last = 0;
    FR_TRY_GOTO(st, ask_int(s, "SELECT ifnull(max(id), 0) FROM jobs", &last), fail);
    s->next_job = (uint64_t)last + 1;
    *out = s;
    return FR_OK;
fail:
    fr_store_close(&s);
    return st;
}

void fr_store_close(fr_store **s)
{
    if (!*s)
        return;
    for (int i = 0; i < N_STATEMENTS; i++)
        sqlite3_finalize((*s)->statements[i]);
    fr_store_queue_clear(&(*s)->queue);
    sqlite3_close((*s)->db);
    free((*s)->path);
    free((*s)->ids);
    free(*s);
    *s = NULL;
}

uint64_t fr_store_next_job(fr_store *s)
{
    return s->next_job++;
}

/* ---- writing */

fr_status fr_store_add_job(fr_store *s, const fr_job_record *r)
{
    return fr_store_queue_job(&s->queue, FR_STORE_ADD_JOB, r);
}

fr_status fr_store_set_job(fr_store *s, const fr_job_record *r)
{
    return fr_store_queue_job(&s->queue, FR_STORE_SET_JOB, r);
}

fr_status fr_store_add_step(fr_store *s, uint64_t job, const fr_store_step *step)
{
    return fr_store_queue_step(&s->queue, job, step);
}

fr_status fr_store_trim_steps(fr_store *s, uint64_t job, uint32_t from_index)
{
    return fr_store_queue_trim(&s->queue, job, from_index);
}

int fr_store_pending(const fr_store *s)
{
    return (int)s->queue.len;
}

static void bind_text(sqlite3_stmt *stmt, int at, const char *text)
{
    sqlite3_bind_text(stmt, at, text ? text : "", -1, SQLITE_STATIC);
}

/* NULL means NaN, which SQLite cannot store. */
static void bind_real(sqlite3_stmt *stmt, int at, double value)
{
    if (!isnan(value))
        sqlite3_bind_double(stmt, at, value);
}

static void bind_spec(sqlite3_stmt *stmt, const fr_msg_job_spec *spec)
{
    int at = COL_PROBLEM + 1;
    bind_text(stmt, at++, spec->problem);
    bind_text(stmt, at++, spec->system);
    bind_text(stmt, at++, spec->policy);
    bind_text(stmt, at++, spec->judge);
    bind_real(stmt, at++, spec->threshold);
    sqlite3_bind_int64(stmt, at++, spec->draft_tokens);
    sqlite3_bind_int64(stmt, at++, spec->lookahead);
    sqlite3_bind_double(stmt, at++, (double)spec->sampling.temperature);
    sqlite3_bind_double(stmt, at++, (double)spec->sampling.top_p);
    sqlite3_bind_int64(stmt, at++, spec->sampling.top_k);
    sqlite3_bind_int64(stmt, at++, (sqlite3_int64)spec->sampling.seed);
    sqlite3_bind_int64(stmt, at++, spec->sampling.sample);
    sqlite3_bind_int64(stmt, at++, spec->max_tokens);
    sqlite3_bind_int64(stmt, at++, spec->step_tokens);
    bind_text(stmt, at++, spec->delimiter);
    bind_text(stmt, at++, spec->name);
    sqlite3_bind_int(stmt, at++, spec->raw);
    sqlite3_bind_int(stmt, at++, spec->default_system);
    sqlite3_bind_int(stmt, at++, spec->default_suffix);
}

static void bind_progress(sqlite3_stmt *stmt, const fr_job_record *r)
{
    int at = COL_STATE + 1;
    bind_text(stmt, at++, fr_job_state_name(r->state));
    sqlite3_bind_int64(stmt, at++, r->counts.steps);
    sqlite3_bind_int64(stmt, at++, r->counts.chain_tokens);
    sqlite3_bind_int64(stmt, at++, r->counts.drafted);
    sqlite3_bind_int64(stmt, at++, r->counts.accepted);
    sqlite3_bind_int64(stmt, at++, r->counts.target_tokens);
    sqlite3_bind_int64(stmt, at++, (sqlite3_int64)r->counts.passes);
    sqlite3_bind_double(stmt, at++, r->counts.seconds);
    sqlite3_bind_int64(stmt, at++, (sqlite3_int64)r->target_digest);
    sqlite3_bind_int64(stmt, at++, (sqlite3_int64)r->draft_digest);
    bind_text(stmt, at++, r->target_model);
    bind_text(stmt, at++, r->draft_model);
    sqlite3_bind_int(stmt, at++, r->status);
    bind_text(stmt, at++, r->cause);
    bind_text(stmt, at++, r->stop);
    bind_text(stmt, at++, r->answer);
    sqlite3_bind_int64(stmt, at++, r->submitted_ms);
    sqlite3_bind_int64(stmt, at++, r->finished_ms);
    sqlite3_bind_int(stmt, at++, r->batch_dependent);
    sqlite3_bind_int64(stmt, at++, r->context);
}

static void bind_step(sqlite3_stmt *stmt, const fr_store_step *step)
{
    sqlite3_bind_int64(stmt, 2, step->index);
    /* x86 and ARM are little-endian, as the file is. A zero-length blob needs a pointer, else it is
     * NULL. */
    sqlite3_bind_blob64(stmt, 3, step->n_ids ? (const void *)step->ids : "",
                        step->n_ids * sizeof *step->ids, SQLITE_STATIC);
    sqlite3_bind_int(stmt, 4, step->origin);
    sqlite3_bind_int(stmt, 5, step->accepted);
    bind_real(stmt, 6, (double)step->score);
    sqlite3_bind_int64(stmt, 7, step->drafted);
    sqlite3_bind_int64(stmt, 8, step->kept);
    sqlite3_bind_double(stmt, 9, step->seconds);
    sqlite3_bind_int64(stmt, 10, (sqlite3_int64)step->passes);
    sqlite3_bind_blob64(stmt, 11, step->text.len ? (const void *)step->text.data : "",
                        step->text.len, SQLITE_STATIC);
}

static fr_status apply(fr_store *s, const fr_store_op *op)
{
    static const int which[] = {[FR_STORE_ADD_JOB] = ADD_JOB,
                                [FR_STORE_SET_JOB] = SET_JOB,
                                [FR_STORE_ADD_STEP] = ADD_STEP,
                                [FR_STORE_TRIM_STEPS] = TRIM_STEPS};
    sqlite3_stmt *stmt = NULL;
    FR_TRY(statement(s, which[op->kind], &stmt));
    sqlite3_bind_int64(stmt, 1, (sqlite3_int64)op->job);
    switch (op->kind) {
    case FR_STORE_ADD_JOB:
        bind_spec(stmt, &op->record.spec);
        bind_progress(stmt, &op->record);
        break;
    case FR_STORE_SET_JOB:
        bind_progress(stmt, &op->record);
        break;
    case FR_STORE_ADD_STEP:
        bind_step(stmt, &op->step);
        break;
    case FR_STORE_TRIM_STEPS:
        sqlite3_bind_int64(stmt, 2, op->step.index);
        break;
    }
    int rc = sqlite3_step(stmt);
    fr_status st = rc == SQLITE_DONE ? FR_OK : store_fail(s, rc, "write");
    done_with(stmt);
    return st;
}

fr_status fr_store_flush(fr_store *s)
{
    if (!s->queue.len)
        return FR_OK;
    fr_status st = FR_OK;
    FR_TRY_GOTO(st, execute(s, "BEGIN IMMEDIATE", "begin to write"), fail);
    for (const fr_store_op *op = s->queue.first; op; op = op->next)
        FR_TRY_GOTO(st, apply(s, op), fail);
    FR_TRY_GOTO(st, execute(s, "COMMIT", "commit"), fail);
    fr_store_queue_clear(&s->queue);
    return FR_OK;
fail: /* some errors end the transaction by themselves */
    if (!sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return st;
}

/* ---- reading */

static const char *text_of(sqlite3_stmt *stmt, int column)
{
    const char *text = (const char *)sqlite3_column_text(stmt, column);
    return text ? text : "";
}

static double real_of(sqlite3_stmt *stmt, int column)
{
    return sqlite3_column_type(stmt, column) == SQLITE_NULL ? NAN
                                                            : sqlite3_column_double(stmt, column);
}

static uint32_t u32_of(sqlite3_stmt *stmt, int column)
{
    return (uint32_t)sqlite3_column_int64(stmt, column);
}

static void read_spec(sqlite3_stmt *stmt, fr_msg_job_spec *spec)
{
    int at = COL_PROBLEM;
    spec->problem = text_of(stmt, at++);
    spec->system = text_of(stmt, at++);
    spec->policy = text_of(stmt, at++);
    spec->judge = text_of(stmt, at++);
    spec->threshold = real_of(stmt, at++);
    spec->draft_tokens = u32_of(stmt, at++);
    spec->lookahead = u32_of(stmt, at++);
    spec->sampling.temperature = (float)sqlite3_column_double(stmt, at++);
    spec->sampling.top_p = (float)sqlite3_column_double(stmt, at++);
    spec->sampling.top_k = u32_of(stmt, at++);
    spec->sampling.seed = (uint64_t)sqlite3_column_int64(stmt, at++);
    spec->sampling.sample = u32_of(stmt, at++);
    spec->max_tokens = u32_of(stmt, at++);
    spec->step_tokens = u32_of(stmt, at++);
    spec->delimiter = text_of(stmt, at++);
    spec->name = text_of(stmt, at++);
    spec->raw = sqlite3_column_int(stmt, at++);
    spec->default_system = sqlite3_column_int(stmt, at++);
    spec->default_suffix = sqlite3_column_int(stmt, at++);
}

static fr_status read_job(const fr_store *s, sqlite3_stmt *stmt, fr_job_record *r)
{
    *r = (fr_job_record){.id = (uint64_t)sqlite3_column_int64(stmt, 0)};
    read_spec(stmt, &r->spec);
    int at = COL_STATE;
    const char *state = text_of(stmt, at++);
    if (fr_job_state_parse(state, &r->state) != FR_OK)
        return fr_fail(FR_EFORMAT, "store %s: job %llu has the unknown state \"%s\"", s->path,
                       (unsigned long long)r->id, state);
    r->counts.steps = u32_of(stmt, at++);
    r->counts.chain_tokens = u32_of(stmt, at++);
    r->counts.drafted = u32_of(stmt, at++);
    r->counts.accepted = u32_of(stmt, at++);
    r->counts.target_tokens = u32_of(stmt, at++);
    r->counts.passes = (uint64_t)sqlite3_column_int64(stmt, at++);
    r->counts.seconds = sqlite3_column_double(stmt, at++);
    r->target_digest = (uint64_t)sqlite3_column_int64(stmt, at++);
    r->draft_digest = (uint64_t)sqlite3_column_int64(stmt, at++);
    r->target_model = text_of(stmt, at++);
    r->draft_model = text_of(stmt, at++);
    r->status = (fr_status)sqlite3_column_int(stmt, at++);
    r->cause = text_of(stmt, at++);
    r->stop = text_of(stmt, at++);
    r->answer = text_of(stmt, at++);
    r->submitted_ms = sqlite3_column_int64(stmt, at++);
    r->finished_ms = sqlite3_column_int64(stmt, at++);
    r->batch_dependent = sqlite3_column_int(stmt, at++);
    r->context = u32_of(stmt, at++);
    return FR_OK;
}

/* Runs a bound statement over jobs. */
static fr_status each_job(fr_store *s, sqlite3_stmt *stmt, int *n_out, fr_store_job_fn fn,
                          void *ctx)
{
    fr_status st = FR_OK;
    int rc = SQLITE_DONE;
    while (st == FR_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        fr_job_record r;
        st = read_job(s, stmt, &r);
        if (st == FR_OK)
            st = fn(ctx, &r);
        ++*n_out;
    }
    if (st == FR_OK && rc != SQLITE_DONE)
        st = store_fail(s, rc, "read jobs");
    done_with(stmt);
    return st;
}

static fr_status no_such_job(uint64_t job)
{
    return fr_fail(FR_ENOTFOUND, "there is no job %llu", (unsigned long long)job);
}

fr_status fr_store_job(fr_store *s, uint64_t job, fr_store_job_fn fn, void *ctx)
{
    sqlite3_stmt *stmt = NULL;
    int n = 0;
    FR_TRY(statement(s, ONE_JOB, &stmt));
    sqlite3_bind_int64(stmt, 1, (sqlite3_int64)job);
    FR_TRY(each_job(s, stmt, &n, fn, ctx));
    return n ? FR_OK : no_such_job(job);
}

fr_status fr_store_new_jobs(fr_store *s, fr_store_job_fn fn, void *ctx)
{
    for (const fr_store_op *op = s->queue.last; op; op = op->prev)
        if (op->kind == FR_STORE_ADD_JOB)
            FR_TRY(fn(ctx, &op->record));
    return FR_OK;
}

fr_status fr_store_new_job(fr_store *s, uint64_t job, fr_store_job_fn fn, void *ctx)
{
    for (const fr_store_op *op = s->queue.last; op; op = op->prev)
        if (op->kind == FR_STORE_ADD_JOB && op->job == job)
            return fn(ctx, &op->record);
    return no_such_job(job);
}

fr_status fr_store_jobs(fr_store *s, int state, uint32_t limit, fr_store_job_fn fn, void *ctx)
{
    sqlite3_stmt *stmt = NULL;
    int n = 0;
    FR_TRY(statement(s, state < 0 ? ALL_JOBS : STATE_JOBS, &stmt));
    sqlite3_bind_int64(stmt, 1, limit);
    if (state >= 0)
        bind_text(stmt, 2, fr_job_state_name((fr_job_state)state));
    return each_job(s, stmt, &n, fn, ctx);
}

fr_status fr_store_open_jobs(fr_store *s, fr_store_job_fn fn, void *ctx)
{
    sqlite3_stmt *stmt = NULL;
    int n = 0;
    FR_TRY(statement(s, OPEN_JOBS, &stmt));
    return each_job(s, stmt, &n, fn, ctx);
}

/* The ids of the current row, aligned. */
static fr_status read_ids(fr_store *s, sqlite3_stmt *stmt, int column, size_t *n_out)
{
    const void *blob = sqlite3_column_blob(stmt, column);
    size_t bytes = (size_t)sqlite3_column_bytes(stmt, column);
    if (bytes % sizeof *s->ids)
        return fr_fail(FR_EFORMAT, "store %s: a step has %zu bytes of ids", s->path, bytes);
    if (bytes > s->ids_cap) {
        int32_t *ids = realloc(s->ids, bytes);
        if (!ids)
            return fr_no_memory();
        s->ids = ids;
        s->ids_cap = bytes;
    }
    if (bytes)
        memcpy(s->ids, blob, bytes);
    *n_out = bytes / sizeof *s->ids;
    return FR_OK;
}

static fr_status read_step(fr_store *s, sqlite3_stmt *stmt, fr_store_step *step)
{
    size_t n_ids = 0;
    FR_TRY(read_ids(s, stmt, 1, &n_ids));
    const uint8_t *text = sqlite3_column_blob(stmt, 9);
    *step = (fr_store_step){
        .index = u32_of(stmt, 0),
        .ids = s->ids,
        .n_ids = n_ids,
        .origin = sqlite3_column_int(stmt, 2),
        .accepted = sqlite3_column_int(stmt, 3),
        .score = (float)real_of(stmt, 4),
        .drafted = u32_of(stmt, 5),
        .kept = u32_of(stmt, 6),
        .seconds = sqlite3_column_double(stmt, 7),
        .passes = (uint64_t)sqlite3_column_int64(stmt, 8),
        .text = {text, (size_t)sqlite3_column_bytes(stmt, 9)},
    };
    return FR_OK;
}

fr_status fr_store_steps(fr_store *s, uint64_t job, uint32_t from_index, fr_store_step_fn fn,
                         void *ctx)
{
    sqlite3_stmt *stmt = NULL;
    fr_status st = FR_OK;
    int rc = SQLITE_DONE;
    FR_TRY(statement(s, STEPS, &stmt));
    sqlite3_bind_int64(stmt, 1, (sqlite3_int64)job);
    sqlite3_bind_int64(stmt, 2, from_index);
    sqlite3_bind_int64(stmt, 3, fr_store_queue_trims(&s->queue, job));
    while (st == FR_OK && (rc = sqlite3_step(stmt)) == SQLITE_ROW) {
        fr_store_step step;
        st = read_step(s, stmt, &step);
        if (st == FR_OK)
            st = fn(ctx, &step);
    }
    if (st == FR_OK && rc != SQLITE_DONE)
        st = store_fail(s, rc, "read steps");
    done_with(stmt);
    return st;
}
