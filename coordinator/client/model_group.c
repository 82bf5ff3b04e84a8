/* model_group.c: see model.h: a session over one or several ranks, and tokens run through it. */
#include "model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "argv.h"
#include "check.h"
#include "sampler.h"

/* The same command under mpirun. It does not come back when it works. */
static fr_status become_mpirun(fr_model_options *o, const char *path)
{
    FR_TRY(fr_session_check_ranks(path, o->ranks)); /* told once and without mpirun's ado */
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return fr_fail(FR_EIO, "/proc/self/exe: %s", strerror(errno));
    self[n] = 0;
    fr_argv argv = {0};
    fr_status st = fr_argv_mpirun(&argv, o->ranks, NULL);
    if (st == FR_OK)
        st = fr_argv_add(&argv, self);
    if (st == FR_OK)
        st = fr_argv_add(&argv, "model");
    for (int i = 0; st == FR_OK && i < o->argc; i++)
        st = fr_argv_add(&argv, i ? o->argv[i] : strrchr(o->argv[0], ' ') + 1);
    if (st == FR_OK) {
        execvp(argv.v[0], argv.v);
        st = fr_fail(FR_ENOTFOUND, "mpirun: %s", strerror(errno));
    }
    fr_argv_free(&argv);
    return st;
}

fr_status fr_model_group_open(fr_model_options *o, const char *path, fr_model_group *out,
                              int *leader_out)
{
    *out = (fr_model_group){0};
    *leader_out = 1;
    int launched = fr_comm_mpi_launched();
    if (o->ranks > 1 && !launched)
        return become_mpirun(o, path);
    FR_TRY(o->ranks > 1 ? fr_comm_mpi_open(0, &out->comm) : fr_comm_self_open(&out->comm));
    *leader_out = out->comm->rank == 0;
    o->follower = !*leader_out;
    /* Placed as forerun-worker's ranks are, so that what is measured here is what they do. */
    fr_session_options options = {.backend = o->backend, .threads = o->threads, .place = 1,
                                  .gpus = o->gpus, .share_gpu = o->share_gpu, .batch_dependent = o->batch_dependent};
    fr_status st = fr_session_open(path, out->comm, &options, &out->session);
    if (st == FR_OK && !*leader_out)
        st = fr_session_follow(out->session);
    if (st != FR_OK)
        fr_model_group_close(out);
    return st;
}

void fr_model_group_close(fr_model_group *g)
{
    fr_session_close(&g->session);
    if (g->comm)
        g->comm->ops->close(&g->comm);
}

/* One pass over tokens [n] of the sequence, the first being number `from` of the caller's. */
static fr_status score_pass(fr_session *s, int seq, const int32_t *tokens, int from, int n,
                            const fr_scoring *x, fr_row_query *queries, int *answers)
{
    int row = 0;
    fr_pass_begin(s);
    FR_TRY(fr_pass_append(s, seq, tokens + from, n, &row));
    for (int i = 0; i < n; i++) {
        answers[i] = -1;
        queries[i] = fr_model_greedy_query(s);
        if (x->ask(x->ctx, from + i, &queries[i]))
            FR_TRY(fr_pass_ask(s, row + i, &queries[i], &answers[i]));
    }
    FR_TRY(fr_pass_run(s));
    for (int i = 0; i < n; i++)
        if (answers[i] >= 0)
            FR_TRY(x->take(x->ctx, from + i, &queries[i], fr_pass_answer(s, answers[i])));
    return FR_OK;
}

fr_status fr_model_score(fr_session *s, int seq, const int32_t *tokens, int n,
                         const fr_scoring *scoring)
{
    int room = fr_session_info_of(s)->max_rows;
    fr_row_query *queries = calloc((size_t)room, sizeof *queries);
    int *answers = calloc((size_t)room, sizeof *answers);
    fr_status st = queries && answers ? FR_OK : fr_no_memory();
    for (int from = 0; st == FR_OK && from < n; from += room)
        st = score_pass(s, seq, tokens, from, n - from < room ? n - from : room, scoring, queries,
                        answers);
    free(queries);
    free(answers);
    return st;
}

fr_row_query fr_model_greedy_query(const fr_session *s)
{
    fr_row_query query;
    fr_sampling greedy = {.top_p = 1};
    fr_sampling_query(&greedy, 0, fr_tokenizer_n_vocab(fr_session_tokenizer(s)), &query);
    query.n_top = 0;
    return query;
}

fr_status fr_model_read_file(const char *path, char **out, size_t *n_out)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return fr_fail(errno == ENOENT ? FR_ENOTFOUND : FR_EIO, "%s: %s", path, strerror(errno));
    fr_buf all = {0};
    char block[65536];
    size_t n;
    fr_status st = FR_OK;
    while (st == FR_OK && (n = fread(block, 1, sizeof block, f)) > 0)
        st = fr_buf_put(&all, block, n);
    if (st == FR_OK && ferror(f))
        st = fr_fail(FR_EIO, "%s: %s", path, strerror(errno));
    fclose(f);
    if (st == FR_OK)
        st = fr_buf_put(&all, "", 1);
    if (st != FR_OK) {
        fr_buf_free(&all);
        return st;
    }
    *out = (char *)all.data;
    *n_out = all.len - 1;
    return FR_OK;
}
