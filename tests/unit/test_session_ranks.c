/* test_session_ranks.c: sessions of groups whose ranks were not all told the same, as when each is started by a command
 * line of its own: refused by every rank in the same words before anything is loaded. And plans that do not fit a
 * follower: refused before it writes. Ranks are threads here, over tcp. */
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "check.h"
#include "plan.h"
#include "rank_facts.h"
#include "rank_threads.h"
#include "session.h"

#define MODELS FORERUN_SOURCE_DIR "/deploy/models/tiny/"
#define TARGET MODELS "tiny-target.gguf"
#define DRAFT MODELS "tiny-draft.gguf"

enum { CONTEXT = 64, KV = 96, ROWS = 8, N_VOCAB = 512 };

static fr_session_options options(void)
{
    return (fr_session_options){.backend = "cpu_ref", .threads = 1, .max_rows = ROWS, .max_context = CONTEXT,
                                .kv_positions = KV};
}

typedef struct start {
    const char *model;
    fr_session_options options;
} start;

static fr_status open_and_close(rank_thread *r)
{
    const start *mine = (const start *)r->input;
    fr_session *s = NULL;
    FR_TRY(fr_session_open(mine->model, r->comm, &mine->options, &s));
    fr_status st = r->comm->rank == 0 ? FR_OK : fr_session_follow(s); /* closing ends it */
    fr_session_close(&s);
    return st;
}

/* Rank 0 as ever, the last of three like this. */
static void refused(const start *other, const char *words)
{
    const start usual = {TARGET, options()};
    rank_thread ranks[3];
    rank_threads_set_up(ranks, 3, 3, open_and_close);
    for (int i = 0; i < 3; i++)
        ranks[i].input = i == 2 ? other : &usual;
    rank_threads_run(ranks, 3);
    rank_threads_ended(ranks, 3, FR_EMISMATCH, words);
}

static void test_options_that_differ(void **state)
{
    (void)state;
    start s = {TARGET, options()};
    s.options.kv_positions = 32;
    refused(&s, "rank 2 has a KV cache of 32 positions, rank 0 of 96 (--kv-positions)");
    s.options = options();
    s.options.max_rows = 2 * ROWS;
    refused(&s, "rank 2 has passes of 16 rows, rank 0 of 8 (--max-rows)");
    s.options = options();
    s.options.max_context = CONTEXT / 2;
    refused(&s, "rank 2 has a context of 32 positions, rank 0 of 64 (--context)");
    s.options = options();
    s.options.draft_vocab = 300;
    refused(&s, ", rank 0 of 0 (--draft-vocab)");
    s.options = options();
    s.options.draft_weights = FR_DRAFT_WEIGHTS_Q4_0;
    refused(&s, "rank 2 holds its weights as q4_0, rank 0 as file (--draft-weights)");
    s.options = options();
    s.options.share_gpu = true;
    refused(&s, "rank 2 may share a GPU, rank 0 may not (--share-gpu)");
    s.options = options();
    s.options.batch_dependent = true;
    refused(&s, "rank 2 has --batch-invariant off, rank 0 on");
}

/* What each rank chooses for itself. */
static void test_options_that_may_differ(void **state)
{
    (void)state;
    start starts[2] = {{TARGET, options()}, {TARGET, options()}};
    starts[1].options.threads = 2;
    starts[1].options.place = 1;
    starts[1].options.rank_timeout_ms = 1000;
    starts[1].options.gpus = (fr_gpu_list){.n = 1, .numbers = {1}};
    rank_thread ranks[2];
    rank_threads_set_up(ranks, 2, 2, open_and_close);
    for (int i = 0; i < 2; i++)
        ranks[i].input = &starts[i];
    rank_threads_run(ranks, 2);
    rank_threads_ended(ranks, 2, FR_OK, "");
}

static void test_another_model(void **state)
{
    (void)state;
    start s = {DRAFT, options()};
    refused(&s, "rank 2 has another model (tiny-draft.gguf, digest ");
    refused(&s, ") than rank 0 (tiny-target.gguf, ");
}

/* A copy of the target with one bit of its last weights turned: another checkpoint of one shape. */
static void write_retrained(const char *path)
{
    FILE *in = fopen(TARGET, "rb"), *out = fopen(path, "wb");
    assert_non_null(in);
    assert_non_null(out);
    for (int byte = getc(in), next; byte != EOF; byte = next) {
        next = getc(in);
        putc(next == EOF ? byte ^ 1 : byte, out);
    }
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

static void test_another_checkpoint(void **state)
{
    (void)state;
    char path[] = "/tmp/fr-retrained-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_retrained(path);
    const start s = {path, options()};
    refused(&s, "rank 2 has another model (fr-retrained-");
    unlink(path);
}

/* Ranks without a GPU share none. */
static void test_a_gpu_for_two(void **state)
{
    (void)state;
    fr_rank_facts ranks[3] = {{.backend = "any"}, {.backend = "any"}, {.backend = "any"}};
    bool shared = true;
    assert_int_equal(fr_rank_facts_compare(ranks, 3, &shared), FR_OK);
    assert_false(shared);
    for (int r = 0; r < 3; r++)
        ranks[r].device[0] = r == 1 ? 1 : 2;
    assert_int_equal(fr_rank_facts_compare(ranks, 3, &shared), FR_EINVAL);
    assert_string_equal(fr_cause(), "ranks 0 and 2 have the same GPU: start fewer, name more GPUs (--gpus), or let "
                                    "them share (--share-gpu)");
    for (int r = 0; r < 3; r++)
        ranks[r].share_gpu = true;
    assert_int_equal(fr_rank_facts_compare(ranks, 3, &shared), FR_OK);
    assert_true(shared);
}

/* ---- plans */

typedef struct wrong {
    void (*spoil)(fr_plan *p);
    const char *words;
} wrong;

static void token(fr_plan *p) { p->rows[0].token = N_VOCAB; }
static void negative_token(fr_plan *p) { p->rows[0].token = -1; }
static void position(fr_plan *p) { p->rows[1].pos = CONTEXT; }
static void slot(fr_plan *p) { p->rows[1].slot = KV; }
static void negative_slot(fr_plan *p) { p->rows[1].slot = -1; }
static void trunk(fr_plan *p) { p->rows[1].trunk_at = 2; }
static void long_trunk(fr_plan *p) { p->rows[1].n_trunk = INT_MAX; }
static void branch(fr_plan *p) { p->rows[1].branch_at = -1; }
static void blind(fr_plan *p) { p->rows[0].n_trunk = 0; }
static void page(fr_plan *p) { p->pages[1] = KV / FR_PAGE; }
static void negative_page(fr_plan *p) { p->pages[0] = INT_MIN; }
static void query_row(fr_plan *p) { p->queries[0].row = 2; }
static void rough_query(fr_plan *p) { p->queries[0].rough = 1; }
static void top(fr_plan *p) { p->queries[0].query.n_top = FR_TOP_MAX + 1; }
static void wanted(fr_plan *p) { p->queries[0].query.n_wanted = -1; }
static void copy_to(fr_plan *p) { p->copies[0].to = KV / FR_PAGE; }
static void copied(fr_plan *p) { p->copies[0].n = FR_PAGE + 1; }

static const wrong plans[] = {
    {token, "row 0 has token 512 of a vocabulary of 512"},
    {negative_token, "row 0 has token -1"},
    {position, "row 1 is at position 64 of a context of 64"},
    {slot, "row 1 goes to slot 96 of a KV cache of 96 positions"},
    {negative_slot, "row 1 goes to slot -1"},
    {trunk, "row 1 at position 1 sees 2 and 0 positions, from pages 2 and 0 of 2 on"},
    {long_trunk, "row 1 at position 1 sees 2147483647 and 0"},
    {branch, "from pages 0 and -1 of 2 on"},
    {blind, "row 0 at position 0 sees 0 and 0"},
    {page, "page 6 of a KV cache of 6"},
    {negative_page, "page -2147483648 of"},
    {query_row, "query 0 is about row 2 of 2"},
    {rough_query, "query 0 is for head 1, which is not there"},
    {top, "query 0 is for 257 candidates"},
    {wanted, "query 0 is for 0 candidates and -1 tokens"},
    {copy_to, "16 positions of page 1 go to page 6, in a KV cache of 6 pages"},
    {copied, "17 positions of page 1 go to page 2"},
};

/* Two rows of one sequence, a question, and a copy. */
static fr_status make_plan(fr_plan *p)
{
    FR_TRY(fr_plan_reserve(p, 2, 2, 1, 1));
    p->n_rows = p->n_pages = 2;
    p->n_queries = p->n_copies = 1;
    p->rows[0] = (fr_plan_row){.token = 5, .n_trunk = 1};
    p->rows[1] = (fr_plan_row){.token = N_VOCAB - 1, .pos = 1, .slot = 1, .n_trunk = 2};
    p->pages[0] = 0;
    p->pages[1] = KV / FR_PAGE - 1;
    p->queries[0] = (fr_plan_query){.row = 1};
    p->copies[0] = (fr_page_copy){.from = 1, .to = 2, .n = FR_PAGE};
    return FR_OK;
}

static void test_plans_that_do_not_fit(void **state)
{
    (void)state;
    const fr_plan_bounds b = {.n_pages = KV / FR_PAGE, .context = CONTEXT, .n_vocab = N_VOCAB};
    for (size_t i = 0; i < sizeof plans / sizeof *plans; i++) {
        fr_plan p = {0};
        assert_int_equal(make_plan(&p), FR_OK);
        assert_int_equal(fr_plan_check(&p, &b), FR_OK);
        plans[i].spoil(&p);
        assert_int_equal(fr_plan_check(&p, &b), FR_EFORMAT);
        if (!strstr(fr_cause(), plans[i].words))
            fail_msg("\"%s\" does not say \"%s\"", fr_cause(), plans[i].words);
        fr_plan_free(&p);
    }
}

static fr_status send_wrong_plan(fr_comm *comm)
{
    fr_plan p = {0};
    fr_buf bytes = {0};
    fr_status st = make_plan(&p);
    if (st == FR_OK)
        slot(&p);
    if (st == FR_OK)
        st = fr_plan_encode(FR_COMMAND_PASS, &p, &bytes);
    if (st == FR_OK)
        st = comm->ops->command_send(comm, bytes.data, bytes.len);
    fr_plan_free(&p);
    fr_buf_free(&bytes);
    return st;
}

/* A leader that sends a plan which its own door would never make, and hears what the follower has to say. */
static fr_status mislead(rank_thread *r)
{
    const fr_session_options o = options();
    fr_session *s = NULL;
    char cause[512];
    float x = 0;
    FR_TRY(fr_session_open(TARGET, r->comm, &o, &s));
    fr_status st = r->comm->rank == 0 ? send_wrong_plan(r->comm) : fr_session_follow(s);
    if (st == FR_OK)
        st = r->comm->ops->all_reduce_sum(r->comm, &x, 1);
    snprintf(cause, sizeof cause, "%s", fr_cause());
    fr_session_close(&s);
    return st == FR_OK ? st : fr_fail(st, "%s", cause);
}

static void test_a_follower_does_not_write_where_it_has_no_room(void **state)
{
    (void)state;
    rank_thread ranks[2];
    rank_threads_set_up(ranks, 2, 2, mislead);
    rank_threads_run(ranks, 2);
    rank_thread_ended(&ranks[0], FR_EPEER, "rank 1: plan of a pass: row 1 goes to slot 96");
    rank_thread_ended(&ranks[1], FR_EFORMAT, "rank 1: plan of a pass: row 1 goes to slot 96");
}

/* Commands cut short or grown, and ones that tell of more than they have. */
static void test_bytes_that_are_no_plan(void **state)
{
    (void)state;
    fr_plan p = {0}, out = {0};
    fr_buf bytes = {0};
    fr_command command = 0;
    assert_int_equal(make_plan(&p), FR_OK);
    assert_int_equal(fr_plan_encode(FR_COMMAND_PASS, &p, &bytes), FR_OK);
    assert_int_equal(fr_plan_decode(bytes.data, bytes.len, &command, &out), FR_OK);
    assert_memory_equal(out.rows, p.rows, 2 * sizeof *p.rows);
    for (size_t n = 0; n < bytes.len; n++)
        assert_int_equal(fr_plan_decode(bytes.data, n, &command, &out), FR_EFORMAT);
    const int32_t many[5] = {FR_COMMAND_PASS, INT_MAX, INT_MAX, INT_MAX, INT_MAX}, strange[5] = {7},
                  negative[5] = {FR_COMMAND_PASS, -1};
    assert_int_equal(fr_plan_decode(many, sizeof many, &command, &out), FR_EFORMAT);
    assert_int_equal(fr_plan_decode(strange, sizeof strange, &command, &out), FR_EFORMAT);
    assert_int_equal(fr_plan_decode(negative, sizeof negative, &command, &out), FR_EFORMAT);
    fr_plan_free(&p);
    fr_plan_free(&out);
    fr_buf_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options_that_differ),
        cmocka_unit_test(test_options_that_may_differ),
        cmocka_unit_test(test_another_model),
        cmocka_unit_test(test_another_checkpoint),
        cmocka_unit_test(test_a_gpu_for_two),
        cmocka_unit_test(test_plans_that_do_not_fit),
        cmocka_unit_test(test_a_follower_does_not_write_where_it_has_no_room),
        cmocka_unit_test(test_bytes_that_are_no_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
