/* test_comm_nccl.c: collectives over NCCL, with a fake GPU and a fake NCCL (cuda_on_cpu): the order of sums to the bit,
 * all recorded and replayed, what moves through host memory, closing while sums are pending, and which communicator a
 * group chooses. What becomes of a group that fails: test_comm_nccl_ends.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check.h"
#include "fake_cuda.h"
#include "nccl_group.h"
#include "rng.h"

static const fr_ops *const ops = &stream_device_ops;

/* ---- sums */

/* Element i of rank r's vector in a round: so mixed that the order of additions shows. */
static float element(int round, int r, size_t i)
{
    const uint32_t counter[4] = {(uint32_t)i, (uint32_t)r, (uint32_t)round, 0}, key[2] = {7, 11};
    uint32_t bits[4];
    fr_philox(counter, key, bits);
    return ((float)(bits[0] >> 8) / (1 << 23) - 1.0f) * (float)(1u << (bits[1] % 20));
}

static void fill(float *x, size_t n, int round, int rank)
{
    for (size_t i = 0; i < n; i++)
        x[i] = element(round, rank, i);
}

static fr_status check_sum(const fr_comm *c, const float *x, size_t n, int round, float tolerance)
{
    for (size_t i = 0; i < n; i++) {
        float want = element(round, 0, i), scale = 1;
        for (int r = 1; r < c->size; r++) {
            want += element(round, r, i);
            scale += (float)(1 << 20);
        }
        const float off = x[i] > want ? x[i] - want : want - x[i];
        if (!(off <= tolerance * scale))
            return fr_fail(FR_EMISMATCH, "rank %d, %zu values: value %zu is %a, want %a", c->rank, n, i, (double)x[i],
                           (double)want);
    }
    return FR_OK;
}

static const size_t sizes[] = {1, 3, 64, 1000, 65536, 65537, 100001};
enum { N_SIZES = sizeof sizes / sizeof *sizes, LARGEST = 100001, MOST_GATHERED = 350000 };

/* Every size, as one of several sums in a row: at once, recorded, and replayed on other values. */
static fr_status sum_sizes(rank_thread *r, fr_comm *c, fr_device *dev, float tolerance)
{
    void *mem = NULL;
    fr_status st = FR_OK;
    float *x = calloc(LARGEST, sizeof *x);
    FR_TRY_GOTO(st, x ? ops->mem_alloc(dev, LARGEST * sizeof *x, &mem) : fr_no_memory(), done);
    for (int round = 0; round < 3 * N_SIZES; round++) {
        const size_t n = sizes[round / 3];
        fill(x, n, round, r->options.rank);
        FR_TRY_GOTO(st, ops->upload(dev, mem, x, n * sizeof *x), done);
        stream_device_record(dev, round % 3 == 1);
        if (round % 3 < 2)
            FR_TRY_GOTO(st, c->ops->all_reduce_sum(c, mem, n), done);
        FR_TRY_GOTO(st, round % 3 < 2 ? ops->sync(dev) : stream_device_replay(dev), done);
        FR_TRY_GOTO(st, ops->download(dev, x, mem, n * sizeof *x), done);
        FR_TRY_GOTO(st, check_sum(c, x, n, round, tolerance), done);
    }
    FR_TRY_GOTO(st, c->ops->all_reduce_sum(c, mem, 0), done);
done:
    ops->mem_free(dev, mem);
    free(x);
    return st;
}

static fr_status sum_in_order(rank_thread *r, fr_comm *c, fr_device *dev)
{
    return sum_sizes(r, c, dev, 0);
}

static fr_status sum_in_any_order(rank_thread *r, fr_comm *c, fr_device *dev)
{
    return sum_sizes(r, c, dev, 1e-6f);
}

static void test_sums_in_rank_order(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true}, .use = sum_in_order};
    for (int n = 1; n <= MOST_RANKS; n++) {
        gpu_ranks_reset(MOST_RANKS);
        gpu_ranks_run_well(n, nccl_group_act, &p);
        assert_int_equal(fake_cuda_count().captures, n * N_SIZES);
        assert_int_equal(fake_cuda_count().graph_launches, 2 * n * N_SIZES);
    }
}

static void test_sums_as_nccl_likes(void **state)
{
    (void)state;
    const nccl_plan p = {.use = sum_in_any_order}, strict = {.use = sum_in_order};
    rank_thread ranks[3];
    gpu_ranks_run_well(3, nccl_group_act, &p);
    gpu_ranks_run(ranks, 3, nccl_group_act, &strict); /* the order shows */
    rank_thread_ended(&ranks[0], FR_EMISMATCH, "want");
}

/* ---- gathers and broadcasts */

enum { N_MOVED = 4, MOST_MOVED = 300001 };
static const size_t moved[N_MOVED] = {1, 96, 4096, MOST_MOVED}; /* bytes */

static uint8_t byte_of(int round, int rank, size_t i)
{
    return (uint8_t)((size_t)(37 * round + 101 * rank) + i * 7 + i / 251);
}

static fr_status check_bytes(const fr_comm *c, const uint8_t *got, size_t n, int round, int from)
{
    for (size_t i = 0; i < n; i++)
        if (got[i] != byte_of(round, from, i))
            return fr_fail(FR_EMISMATCH, "rank %d, round %d: byte %zu of rank %d's", c->rank, round, i, from);
    return FR_OK;
}

static fr_status upload_bytes(fr_comm *c, fr_device *dev, uint8_t *host, void *mem, size_t n, int round)
{
    for (size_t i = 0; i < n; i++)
        host[i] = byte_of(round, c->rank, i);
    return ops->upload(dev, mem, host, n);
}

/* Every rank's bytes reach the leader, which learns of them when gather() returns; then the leader's reach all, at
 * once, recorded and replayed. all [MOST_RANKS * MOST_MOVED]. */
static fr_status move_size(fr_comm *c, fr_device *dev, uint8_t *all, void *mem, int size)
{
    const size_t n = moved[size];
    FR_TRY(upload_bytes(c, dev, all, mem, n, size));
    FR_TRY(c->ops->gather(c, mem, n, all));
    for (int r = 0; r < c->size && c->rank == 0; r++)
        FR_TRY(check_bytes(c, all + (size_t)r * n, n, size, r));
    for (int round = 0; round < 3; round++) {
        FR_TRY(upload_bytes(c, dev, all, mem, n, round));
        stream_device_record(dev, round == 1);
        if (round < 2)
            FR_TRY(c->ops->broadcast(c, mem, n));
        FR_TRY(round < 2 ? ops->sync(dev) : stream_device_replay(dev));
        FR_TRY(ops->download(dev, all, mem, n));
        FR_TRY(check_bytes(c, all, n, round, 0));
    }
    return c->ops->agree(c, FR_OK);
}

static fr_status move_sizes(rank_thread *r, fr_comm *c, fr_device *dev)
{
    (void)r;
    void *mem = NULL;
    fr_status st = FR_OK;
    uint8_t *all = calloc(MOST_RANKS, MOST_MOVED);
    FR_TRY_GOTO(st, all ? ops->mem_alloc(dev, MOST_MOVED, &mem) : fr_no_memory(), done);
    for (int size = 0; size < N_MOVED; size++)
        FR_TRY_GOTO(st, move_size(c, dev, all, mem, size), done);
    FR_TRY_GOTO(st, c->ops->gather(c, mem, 0, all), done);
    FR_TRY_GOTO(st, c->ops->broadcast(c, mem, 0), done);
done:
    ops->mem_free(dev, mem);
    free(all);
    return st;
}

static void test_gathers_and_broadcasts(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true}, .use = move_sizes};
    for (int n = 1; n <= MOST_RANKS; n++) {
        gpu_ranks_reset(MOST_RANKS);
        gpu_ranks_run_well(n, nccl_group_act, &p);
        assert_int_equal(fake_cuda_count().captures, n * N_MOVED);
        assert_int_equal(fake_cuda_count().graph_launches, 2 * n * N_MOVED);
    }
}

/* The device has room for the largest from the beginning. */
static fr_status sum_in_reserved(rank_thread *r, fr_comm *c, fr_device *dev)
{
    static uint8_t all[MOST_RANKS * MOST_GATHERED]; /* rank 0's */
    void *x = NULL;
    FR_TRY(ops->mem_alloc(dev, LARGEST * sizeof(float), &x));
    FR_TRY(c->ops->agree(c, FR_OK));
    const size_t before = fake_cuda_count().device_bytes;
    FR_TRY(c->ops->agree(c, FR_OK));
    FR_TRY(c->ops->gather(c, x, MOST_GATHERED, all));
    for (int i = 0; i < N_SIZES; i++)
        FR_TRY(c->ops->all_reduce_sum(c, x, sizes[i]));
    FR_TRY(c->ops->broadcast(c, x, LARGEST * sizeof(float)));
    FR_TRY(ops->sync(dev));
    FR_TRY(c->ops->agree(c, FR_OK));
    const size_t after = fake_cuda_count().device_bytes;
    FR_TRY(c->ops->agree(c, after == before ? FR_OK
                                            : fr_fail(FR_EMISMATCH, "rank %d: %zu bytes became %zu", r->options.rank,
                                                      before, after)));
    ops->mem_free(dev, x);
    return FR_OK;
}

static void test_room_for_the_largest(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true, .max_sum = LARGEST, .max_gather = MOST_GATHERED},
                         .use = sum_in_reserved};
    for (int n = 2; n <= MOST_RANKS; n++)
        gpu_ranks_run_well(n, nccl_group_act, &p);
}

/* What is in host memory goes through the communicator below, and its limits hold. */
static fr_status pass_on(rank_thread *r, fr_comm *c, fr_device *dev)
{
    (void)dev;
    int mine = r->options.rank, all[MOST_RANKS] = {0};
    const size_t most = (size_t)1 << 40;
    FR_TRY(c->ops->all_gather(c, &mine, sizeof mine, all, 0));
    for (int i = 0; i < c->size; i++)
        if (all[i] != i)
            return fr_fail(FR_EMISMATCH, "rank %d: %d at %d", mine, all[i], i);
    if (c->ops->all_reduce_sum(c, NULL, most) != FR_ELIMIT || c->ops->gather(c, NULL, most, NULL) != FR_ELIMIT ||
        c->ops->broadcast(c, NULL, most) != FR_ELIMIT)
        return fr_fail(FR_EMISMATCH, "1 TB was taken");
    return c->ops->agree(c, FR_OK);
}

static void test_passes_on(void **state)
{
    (void)state;
    const nccl_plan p = {.options = {.batch_invariant = true}, .use = pass_on};
    gpu_ranks_run_well(2, nccl_group_act, &p);
}

/* ---- closing */

/* A communicator may be closed while sums are pending, which must not touch it later. */
static fr_status leave_a_sum_pending(fr_comm *c, fr_device *dev)
{
    void *x = NULL;
    FR_TRY(ops->mem_alloc(dev, sizeof(float), &x));
    FR_TRY(c->ops->all_reduce_sum(c, x, 1));
    c->ops->close(&c);
    const fr_status st = ops->sync(dev);
    ops->mem_free(dev, x);
    return st;
}

static fr_status act_and_close(rank_thread *r)
{
    fr_device *dev = NULL;
    fr_comm *c = NULL;
    FR_TRY(ops->open(&(fr_device_options){.local_rank = r->options.rank}, &dev));
    fr_status st = fr_comm_nccl_open(r->comm, ops, dev, r->input, &c);
    if (st == FR_OK)
        st = leave_a_sum_pending(c, dev);
    ops->close(&dev);
    return st;
}

static void test_closed_with_a_sum_pending(void **state)
{
    (void)state;
    for (int in_rank_order = 0; in_rank_order < 2; in_rank_order++)
        gpu_ranks_run_well(2, act_and_close, &(fr_comm_device_options){.batch_invariant = in_rank_order});
}

/* ---- which communicator */

static fr_status choose(rank_thread *r)
{
    fr_device *dev = NULL;
    fr_comm *c = NULL;
    char names[128] = "";
    const int *without = r->input; /* the rank without NCCL, NULL: none */
    gpu_rank_is_without_nccl(without && r->options.rank == *without);
    const fr_comm_device_options options[] = {{.batch_invariant = true}, {.share_gpu = true}};
    FR_TRY(ops->open(&(fr_device_options){.local_rank = r->options.rank}, &dev));
    for (int i = 0; i < 2; i++) {
        fr_status st = fr_comm_device_open(r->comm, ops, dev, &options[i], &c);
        if (st != FR_OK)
            return st;
        strcat(strcat(names, c ? c->ops->name : "none"), " ");
        if (c)
            c->ops->close(&c);
    }
    ops->close(&dev);
    FR_TRY(fr_comm_device_open(r->comm, &fr_ops_cpu_ref, NULL, &options[0], &c));
    return fr_fail(FR_ECANCELLED, "%s%s", names, c ? c->ops->name : "none");
}

static void test_choice(void **state)
{
    (void)state;
    static const char *const want[] = {"none none none", "nccl staged none"};
    for (int n = 1; n <= 2; n++) {
        rank_thread ranks[2];
        gpu_ranks_run(ranks, n, choose, NULL);
        rank_threads_ended(ranks, n, FR_ECANCELLED, want[n - 1]);
    }
}

/* One rank without NCCL is enough: none may wait for it. */
static void test_choice_without_nccl(void **state)
{
    (void)state;
    for (int without = 0; without < 3; without++) {
        rank_thread ranks[3];
        gpu_ranks_run(ranks, 3, choose, &without);
        rank_threads_ended(ranks, 3, FR_ECANCELLED, "staged staged none");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_sums_in_rank_order, nccl_group_set_up),
        cmocka_unit_test_setup(test_sums_as_nccl_likes, nccl_group_set_up),
        cmocka_unit_test_setup(test_gathers_and_broadcasts, nccl_group_set_up),
        cmocka_unit_test_setup(test_room_for_the_largest, nccl_group_set_up),
        cmocka_unit_test_setup(test_passes_on, nccl_group_set_up),
        cmocka_unit_test_setup(test_closed_with_a_sum_pending, nccl_group_set_up),
        cmocka_unit_test_setup(test_choice, nccl_group_set_up),
        cmocka_unit_test_setup(test_choice_without_nccl, nccl_group_set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
