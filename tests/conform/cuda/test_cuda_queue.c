/* test_cuda_queue.c: what the host does for the GPU backend: a pass's commands become a graph that is replayed with the
 * next pass's data, staged blocks grow, a residual sum goes along with the norm behind it, waits can be ended, and what
 * a GPU lacks is told. Over the CUDA that runs on the CPU, whose counts tell what happened. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "device_arrays.h"
#include "fake_cuda.h"
#include "ops_cuda.h"

enum { DIM = 64, LAYERS = 12 };

static const fr_ops *const ops = &fr_ops_cuda;

/* [DIM], all the same. */
static float *device_array(fr_device *dev, float value)
{
    float host[DIM];
    for (int i = 0; i < DIM; i++)
        host[i] = value;
    return new_array(dev, host, DIM);
}

/* A table of rows 0 .. 9 whose values are their number. */
static const fr_matrix *table(void)
{
    static float rows[10 * DIM];
    static fr_matrix m = {FR_F32, rows, 10, DIM, DIM * sizeof(float)};
    for (int i = 0; i < 10 * DIM; i++)
        rows[i] = (float)(i / DIM);
    return &m;
}

/* x = the token's row, and then one more from each layer. */
static float pass(fr_device *dev, float *x, const float *one, int32_t token)
{
    float out[DIM];
    assert_int_equal(ops->embed(dev, x, table(), &token, 1), FR_OK);
    for (int l = 0; l < LAYERS; l++)
        assert_int_equal(ops->add(dev, x, one, 1, DIM), FR_OK);
    assert_int_equal(ops->download(dev, out, x, sizeof out), FR_OK);
    for (int i = 1; i < DIM; i++)
        assert_true(out[i] == out[0]);
    return out[0];
}

static void test_graph_of_a_pass(void **state)
{
    (void)state;
    fr_device *dev = open_device(&(fr_device_options){0});
    float *x = device_array(dev, 0), *one = device_array(dev, 1);
    for (int32_t token = 0; token < 6; token++)
        assert_true(pass(dev, x, one, token) == (float)(token + LAYERS));
    fake_cuda_counts counts = fake_cuda_count();
    assert_int_equal(counts.captures, 1); /* at the second sight of the same commands */
    assert_int_equal(counts.graph_launches, 5);
    assert_int_equal(counts.kernels_run, 6 * (1 + LAYERS));
    close_device(&dev);
}

/* The host asks for two copies at the first sight of a pass: of what is staged, and back of its result. From the second
 * time on the latter is part of the graph. */
static void test_result_comes_with_the_graph(void **state)
{
    (void)state;
    fr_device *dev = open_device(&(fr_device_options){0});
    float *x = device_array(dev, 0), *one = device_array(dev, 1);
    for (int32_t token = 0; token < 2; token++)
        (void)pass(dev, x, one, token);
    fake_cuda_fail("cudaMemcpyAsync", 2, cudaErrorInvalidValue);
    assert_true(pass(dev, x, one, 5) == (float)(5 + LAYERS));
    fake_cuda_fail("cudaMemcpyAsync", 2, cudaErrorInvalidValue);
    int32_t token = 3;
    float out[DIM];
    assert_int_equal(ops->embed(dev, x, table(), &token, 1), FR_OK); /* nothing else: commands not seen before */
    assert_int_equal(ops->download(dev, out, x, sizeof out), FR_EIO);
    assert_int_equal(ops->download(dev, out, x, sizeof out), FR_OK);
    assert_true(out[0] == 3.0f);
    close_device(&dev);
}

/* Passes of other shapes in turn have a graph each, and none is taken for another. */
static void test_graphs_in_turn(void **state)
{
    (void)state;
    fr_device *dev = open_device(&(fr_device_options){0});
    float *x = device_array(dev, 0), *one = device_array(dev, 1), *two = device_array(dev, 2);
    for (int32_t token = 0; token < 8; token++) {
        const float *step = token % 2 ? two : one;
        assert_true(pass(dev, x, step, token) == (float)(token + LAYERS * (token % 2 ? 2 : 1)));
    }
    assert_int_equal(fake_cuda_count().captures, 2);
    close_device(&dev);
}

/* More rows than the staged block holds: it grows, and the graphs that named it are gone. */
static void test_block_grows(void **state)
{
    (void)state;
    enum { MANY = 40000 }; /* rows of 256 bytes: 10 MB */
    fr_device *dev = open_device(&(fr_device_options){0});
    float *x = device_array(dev, 0), *one = device_array(dev, 1);
    int32_t *tokens = calloc(MANY, sizeof *tokens);
    float *out = malloc(sizeof(float) * DIM * MANY);
    assert_true(tokens && out);
    for (int i = 0; i < MANY; i++)
        tokens[i] = i % 10;
    for (int i = 0; i < 3; i++)
        (void)pass(dev, x, one, 3);
    assert_int_equal(fake_cuda_count().graph_execs, 1);
    void *wide = new_memory(dev, sizeof(float) * DIM * MANY);
    assert_int_equal(ops->embed(dev, wide, table(), tokens, MANY), FR_OK);
    assert_int_equal(fake_cuda_count().graph_execs, 0);
    assert_int_equal(ops->download(dev, out, wide, sizeof(float) * DIM * MANY), FR_OK);
    for (int i = 0; i < DIM * MANY; i++)
        assert_true(out[i] == (float)(i / DIM % 10));
    assert_true(pass(dev, x, one, 7) == (float)(7 + LAYERS));
    free(out);
    free(tokens);
    close_device(&dev);
}

/* x += y, norm of x: one kernel; x has the sum all the same. Of another x, or with a bias: two. */
static void test_sum_goes_with_the_norm(void **state)
{
    (void)state;
    fr_device *dev = open_device(&(fr_device_options){0});
    float *x = device_array(dev, 1), *y = device_array(dev, 2), *z = device_array(dev, 0), *w = device_array(dev, 1);
    float out[DIM];
    assert_int_equal(ops->add(dev, x, y, 1, DIM), FR_OK);
    assert_int_equal(ops->rms_norm(dev, z, x, w, 1, DIM, 0), FR_OK);
    assert_int_equal(ops->download(dev, out, x, sizeof out), FR_OK);
    assert_true(out[DIM - 1] == 3.0f);
    assert_int_equal(ops->download(dev, out, z, sizeof out), FR_OK);
    assert_true(out[DIM - 1] == 1.0f);
    assert_int_equal(fake_cuda_count().kernels_run, 1);
    assert_int_equal(ops->add(dev, y, x, 1, DIM), FR_OK);
    assert_int_equal(ops->rms_norm(dev, z, x, w, 1, DIM, 0), FR_OK);
    assert_int_equal(ops->add_bias(dev, x, w, 1, DIM), FR_OK);
    assert_int_equal(ops->rms_norm(dev, z, x, w, 1, DIM, 0), FR_OK);
    assert_int_equal(ops->download(dev, out, x, sizeof out), FR_OK);
    assert_true(out[0] == 4.0f);
    assert_int_equal(fake_cuda_count().kernels_run, 5);
    close_device(&dev);
}

/* The staged block (4 MiB) is full between the two arrays of an operation: positions of 1 KiB and frequencies of 256
 * bytes, 3276 times, leave room for one more of the former. Neither may be lost, whatever fills the block then. */
static void test_full_block(void **state)
{
    (void)state;
    enum { ROWS = 256, HEAD = 8, BEFORE = 3277, BEHIND = 3276 };
    fr_device *dev = open_device(&(fr_device_options){0});
    int32_t pos[ROWS] = {0};
    float inv_freq[HEAD / 2] = {1, 1, 1, 1}, start[ROWS * HEAD], out[ROWS * HEAD];
    for (int i = 0; i < ROWS * HEAD; i++)
        start[i] = (float)(i % 7) - 3;
    float *still = new_array(dev, start, ROWS * HEAD), *turning = new_memory(dev, sizeof start);
    for (int i = 0; i < BEFORE + BEHIND; i++) {
        for (int r = 0; r < ROWS && i == BEFORE; r++)
            pos[r] = 1;
        inv_freq[0] = 1 + (float)i; /* new data each time, or they would be there already */
        pos[ROWS - 1] = i;
        const fr_rope rope = {FR_ROPE_NEOX, HEAD, inv_freq, 1};
        assert_int_equal(ops->rope(dev, i < BEFORE ? still : turning, &rope, pos, ROWS, 1, HEAD), FR_OK);
    }
    assert_int_equal(ops->download(dev, out, still, sizeof out), FR_OK);
    for (int i = 0; i < (ROWS - 1) * HEAD; i++)
        assert_true(out[i] == start[i]); /* position 0 turns nothing */
    close_device(&dev);
}

static fr_status refuse(void *ctx)
{
    (void)ctx;
    return fr_fail(FR_EPEER, "rank 1 is gone");
}

static void test_peers_end_a_wait(void **state)
{
    (void)state;
    fr_device *dev = open_device(&(fr_device_options){0});
    float *x = device_array(dev, 1);
    ops->set_peers(dev, &(fr_device_peers){.check = refuse});
    assert_int_equal(ops->add(dev, x, x, 1, DIM), FR_OK);
    assert_int_equal(ops->sync(dev), FR_EPEER);
    assert_string_equal(fr_cause(), "rank 1 is gone");
    ops->set_peers(dev, NULL);
    assert_int_equal(ops->sync(dev), FR_OK);
    close_device(&dev);
}

static void meet(void *stream, const void *args)
{
    (void)stream, (void)args;
}

/* A pass that meets peers, seen for the first time. */
enum { LONG_PASS = 3000, HELD = 1000 /* launches that cannot begin yet: more than that CUDA may not let in */ };

static fr_status run_long_pass(const fr_device_peers *peers)
{
    fr_device *dev = open_device(&(fr_device_options){0});
    float *x = device_array(dev, 0);
    ops->set_peers(dev, peers);
    assert_int_equal(ops->enqueue(dev, meet, "", 1), FR_OK);
    for (int i = 0; i < LONG_PASS; i++)
        assert_int_equal(ops->add(dev, x, x, 1, DIM), FR_OK);
    const fr_status st = ops->sync(dev);
    ops->set_peers(dev, NULL);
    assert_int_equal(ops->sync(dev), FR_OK);
    close_device(&dev);
    return st;
}

/* What the peers' functions saw. */
typedef struct sight {
    int launches; /* when they were called last */
    int ahead;    /* launches that had not run, at most */
    int compared, apart;
} sight;

static fr_status look(void *ctx)
{
    sight *s = ctx;
    const fake_cuda_counts counts = fake_cuda_count();
    s->launches = counts.launches;
    if (counts.launches - counts.kernels_run > s->ahead)
        s->ahead = counts.launches - counts.kernels_run;
    return FR_OK;
}

static fr_status look_and_refuse(void *ctx)
{
    (void)look(ctx);
    return refuse(NULL);
}

/* The first `apart` times another rank is one meeting behind. */
static fr_status compare(void *ctx, const int64_t mine[2], int64_t least[2], int64_t greatest[2])
{
    sight *s = ctx;
    (void)look(ctx);
    for (int i = 0; i < 2; i++)
        least[i] = greatest[i] = mine[i];
    least[0] -= s->compared++ < s->apart;
    return FR_OK;
}

/* The host launches not much more than the stream has come to, so a peer that is gone is noticed before CUDA lets no
 * launch in any more. */
static void test_host_keeps_the_pace(void **state)
{
    (void)state;
    sight s = {0};
    assert_int_equal(run_long_pass(&(fr_device_peers){.ctx = &s, .check = look, .compare = compare}), FR_OK);
    assert_in_range(s.ahead, HELD / 10, HELD);
    s = (sight){0};
    assert_int_equal(run_long_pass(&(fr_device_peers){.ctx = &s, .check = look_and_refuse, .compare = compare}),
                     FR_EPEER);
    assert_in_range(s.launches, 1, HELD);
}

/* But for a rank that is ahead of the others: they come to its meetings after they compared again. */
static void test_rank_ahead_launches_all(void **state)
{
    (void)state;
    sight s = {.apart = 1};
    const fr_device_peers peers = {.ctx = &s, .check = look_and_refuse, .compare = compare};
    assert_int_equal(run_long_pass(&peers), FR_EPEER); /* in the wait at its end */
    assert_int_equal(s.compared, 2);
    assert_int_equal(s.launches, LONG_PASS);
}

/* Whatever CUDA refuses becomes a status with its text, and the device can be closed. */
static void test_failures(void **state)
{
    (void)state;
    fr_device *dev = open_device(&(fr_device_options){0});
    float *x = device_array(dev, 1), *one = device_array(dev, 1);
    fake_cuda_fail("kernel", 1, cudaErrorLaunchFailure);
    assert_int_equal(ops->add(dev, x, x, 1, DIM), FR_OK);
    assert_int_equal(ops->sync(dev), FR_EIO);
    assert_non_null(strstr(fr_cause(), "GPU: "));
    (void)pass(dev, x, one, 1);
    fake_cuda_fail("cudaGraphInstantiate", 1, cudaErrorMemoryAllocation);
    for (int32_t t = 2; t < 5; t++) /* a graph only saves time */
        assert_true(pass(dev, x, one, t) == (float)(t + LAYERS));
    assert_int_equal(fake_cuda_count().graph_launches, 0);
    assert_int_equal(fake_cuda_count().graph_execs, 0);
    close_device(&dev);
}

/* A launcher tells nobody; the wait behind it does. */
static void test_failing_product(void **state)
{
    (void)state;
    enum { ROWS = 64 };
    static const uint16_t bf16[ROWS * DIM];
    fr_device *dev = open_device(&(fr_device_options){.batch_dependent = true});
    fr_weight *w = NULL;
    void *x = new_memory(dev, sizeof(float) * ROWS * DIM), *y = new_memory(dev, sizeof(float) * ROWS * ROWS);
    assert_int_equal(ops->weight_new(dev, &(fr_matrix){FR_BF16, bf16, ROWS, DIM, DIM * 2}, &w), FR_OK);
    const fr_product product = {y, w};
    fake_cuda_fail("cublasLtMatmul", 1, 14);
    assert_int_equal(ops->matmul(dev, &product, 1, x, ROWS), FR_OK);
    assert_int_equal(ops->sync(dev), FR_EIO);
    assert_string_equal(fr_cause(), "cuBLASLt: a product failed with status 14");
    assert_int_equal(ops->matmul(dev, &product, 1, x, ROWS), FR_OK);
    assert_int_equal(ops->sync(dev), FR_OK);
    ops->weight_free(dev, &w);
    close_device(&dev);
}

/* The fake's device d has d + 1 there. */
static int opened_gpu(const fr_device_options *o)
{
    fr_device *dev = NULL;
    uint8_t id[FR_DEVICE_ID];
    assert_int_equal(ops->open(o, &dev), FR_OK);
    assert_int_equal(ops->device_id(dev, id), FR_OK);
    close_device(&dev);
    return id[0] - 1;
}

static void test_which_gpu(void **state)
{
    (void)state;
    fr_device *dev = NULL;
    fake_cuda_reset();
    fake_cuda_set_devices(0);
    assert_int_equal(ops->open(&(fr_device_options){0}, &dev), FR_EUNSUPPORTED);
    assert_null(dev);
    fake_cuda_set_devices(2);
    fake_cuda_set_shared_memory(99 << 10); /* of a graphics card */
    assert_int_equal(ops->open(&(fr_device_options){0}, &dev), FR_EUNSUPPORTED);
    assert_non_null(strstr(fr_cause(), "158 KiB of shared memory"));
    fake_cuda_set_shared_memory(163 << 10); /* of an A100 */
    uint8_t ids[3][FR_DEVICE_ID];
    for (int rank = 0; rank < 3; rank++) { /* in turn: the third has the first one's */
        assert_int_equal(ops->open(&(fr_device_options){.local_rank = rank}, &dev), FR_OK);
        assert_int_equal(ops->device_id(dev, ids[rank]), FR_OK);
        close_device(&dev);
    }
    assert_memory_equal(ids[0], ids[2], FR_DEVICE_ID);
    assert_memory_not_equal(ids[0], ids[1], FR_DEVICE_ID);
    fake_cuda_set_devices(3);
    fake_cuda_set_first_device_shared_memory(99 << 10); /* a graphics card before the two that fit */
    assert_int_equal(fr_cuda_usable(), FR_OK);
    for (int rank = 0; rank < 3; rank++)
        assert_int_equal(opened_gpu(&(fr_device_options){.local_rank = rank}), 1 + rank % 2);
}

static void test_named_gpus(void **state)
{
    (void)state;
    static const int want[] = {3, 1, 3};
    fr_device *dev = NULL;
    fr_device_options o = {.gpus = {.n = 2, .numbers = {3, 1}}};
    fake_cuda_reset();
    fake_cuda_set_devices(4);
    for (o.local_rank = 0; o.local_rank < 3; o.local_rank++) /* in turn, in the list's order */
        assert_int_equal(opened_gpu(&o), want[o.local_rank]);
    fake_cuda_set_first_device_shared_memory(99 << 10); /* a graphics card, which is not counted */
    o = (fr_device_options){.gpus = {.n = 1, .numbers = {0}}};
    assert_int_equal(opened_gpu(&o), 1);
    o.gpus.numbers[0] = 2;
    assert_int_equal(opened_gpu(&o), 3);
    o.gpus.numbers[0] = 3;
    assert_int_equal(ops->open(&o, &dev), FR_EINVAL);
    assert_string_equal(fr_cause(), "backend cuda: there is no GPU 3 here: it can use 3, counted from 0");
    o.gpus = (fr_gpu_list){.n = 2, .numbers = {0, 7}}; /* also one that this rank would not take */
    assert_int_equal(ops->open(&o, &dev), FR_EINVAL);
    assert_non_null(strstr(fr_cause(), "there is no GPU 7 here"));
    assert_null(dev);
    fake_cuda_reset();
    assert_true(fake_cuda_all_freed());
}

static void test_memory(void **state)
{
    (void)state;
    void *mem = NULL;
    fake_cuda_reset();
    fake_cuda_set_total_memory((size_t)64 << 20);
    fr_device *dev = NULL;
    assert_int_equal(ops->open(&(fr_device_options){0}, &dev), FR_OK);
    assert_int_equal(ops->mem_alloc(dev, (size_t)100 << 20, &mem), FR_ENOMEM);
    assert_non_null(strstr(fr_cause(), "101 MiB more are needed, and of its 64 MiB"));
    size_t left = 0, total = 0;
    assert_int_equal(ops->mem_info(dev, &left, &total), FR_OK);
    assert_true(total == (size_t)64 << 20 && left < total && left > total / 2);
    double gb_s = 0, ms = -1;
    assert_int_equal(ops->read_gb_s(dev, &gb_s), FR_OK);
    assert_int_equal(ops->device_ms(dev, &ms), FR_OK);
    assert_true(gb_s > 0 && ms >= 0);
    close_device(&dev);
    fake_cuda_reset();
}

enum { WIDE = 512, HIGH = 48, MOST_ROWS = 130, N_TYPES = 5 };

/* Matrices [HIGH, WIDE] of all kinds, of zeros. */
static void list_matrices(fr_matrix out[N_TYPES])
{
    static const uint8_t zeros[HIGH * WIDE * sizeof(float)];
    static const fr_dtype types[N_TYPES] = {FR_F32, FR_BF16, FR_F16, FR_Q8_0, FR_Q6_K};
    for (int i = 0; i < N_TYPES; i++)
        out[i] = (fr_matrix){types[i], zeros, HIGH, WIDE, fr_dtype_row_bytes(types[i], WIDE)};
}

/* Products with each by itself and with all, of more and more rows. Bytes that the device took for itself meanwhile. */
static size_t multiply_all(fr_device *dev, const fr_matrix *matrices, int n_matrices)
{
    fr_product products[N_TYPES] = {{0}};
    void *x = new_memory(dev, sizeof(float) * MOST_ROWS * WIDE);
    for (int i = 0; i < n_matrices; i++) {
        fr_weight *w = NULL;
        assert_int_equal(ops->weight_new(dev, &matrices[i], &w), FR_OK);
        products[i] = (fr_product){new_memory(dev, sizeof(float) * MOST_ROWS * HIGH), w};
    }
    const size_t before = fake_cuda_count().device_bytes;
    for (int n = 1; n <= MOST_ROWS; n = n < 64 ? 2 * n : n + 66) {
        for (int i = 0; i < n_matrices; i++)
            assert_int_equal(ops->matmul(dev, &products[i], 1, x, n), FR_OK);
        assert_int_equal(ops->matmul(dev, products, n_matrices, x, n), FR_OK);
    }
    assert_int_equal(ops->sync(dev), FR_OK);
    const size_t after = fake_cuda_count().device_bytes;
    for (int i = 0; i < n_matrices; i++) {
        fr_weight *w = (fr_weight *)(uintptr_t)products[i].w;
        ops->weight_free(dev, &w);
    }
    return after - before;
}

static size_t reserve(fr_device *dev, const fr_pass_bounds *bounds)
{
    const size_t before = fake_cuda_count().device_bytes;
    assert_int_equal(ops->reserve(dev, bounds), FR_OK);
    return fake_cuda_count().device_bytes - before;
}

static void check_products(const fr_matrix *matrices, int n_matrices, bool batch_dependent)
{
    const fr_device_options o = {.batch_dependent = batch_dependent};
    const fr_pass_bounds bounds = {.rows = MOST_ROWS, .context = 1, .heads = 1, .head_dim = 8, .head_rows = 1,
                                   .vocab = 1, .table = table(), .matrices = matrices, .n_matrices = n_matrices};
    fr_device *dev = open_device(&o);
    const size_t taken = multiply_all(dev, matrices, n_matrices);
    close_device(&dev);
    dev = open_device(&o);
    const size_t reserved = reserve(dev, &bounds);
    assert_int_equal(multiply_all(dev, matrices, n_matrices), 0);
    close_device(&dev);
    if (!batch_dependent && matrices[0].dtype != FR_F32)
        assert_int_equal(reserved, taken); /* no more than the largest product takes */
}

/* After reserve() products allocate nothing, whatever the types; nor do rows of a table, questions and long views. */
static void test_reserve(void **state)
{
    (void)state;
    fr_matrix matrices[N_TYPES];
    list_matrices(matrices);
    for (int by_cublas = 0; by_cublas < 2; by_cublas++) {
        for (int i = 0; i < N_TYPES; i++)
            check_products(&matrices[i], 1, by_cublas);
        check_products(matrices, N_TYPES, by_cublas);
    }
}

/* Of two products that share x, cuBLASLt has no algorithm for the first: x is made ready in two forms. */
static void test_reserve_for_both_ways(void **state)
{
    (void)state;
    fr_matrix all[N_TYPES], matrices[2];
    fr_product products[2];
    list_matrices(all);
    matrices[0] = matrices[1] = all[1];
    matrices[1].rows = HIGH / 2;
    const fr_pass_bounds bounds = {.rows = MOST_ROWS, .context = 1, .heads = 1, .head_dim = 8, .head_rows = 1,
                                   .vocab = 1, .table = table(), .matrices = matrices, .n_matrices = 2};
    fr_device *dev = open_device(&(fr_device_options){.batch_dependent = true});
    assert_true(reserve(dev, &bounds) > 0);
    void *x = new_memory(dev, sizeof(float) * MOST_ROWS * WIDE);
    fr_weight *w[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ops->weight_new(dev, &matrices[i], &w[i]), FR_OK);
        products[i] = (fr_product){new_memory(dev, sizeof(float) * MOST_ROWS * HIGH), w[i]};
    }
    const size_t before = fake_cuda_count().device_bytes;
    fake_cuda_fail("cublasLtMatmulAlgoGetHeuristic", 1, 15);
    assert_int_equal(ops->matmul(dev, products, 2, x, MOST_ROWS), FR_OK);
    assert_int_equal(ops->sync(dev), FR_OK);
    assert_int_equal(fake_cuda_count().device_bytes, before);
    for (int i = 0; i < 2; i++)
        ops->weight_free(dev, &w[i]);
    close_device(&dev);
}

enum { ROWS = 40, CONTEXT = 4000, VOCAB = 3000, BIG = 30000, HEAD = 8, HEADS = 2 };

static void test_reserve_for_rows(void **state)
{
    (void)state;
    static float rows[2 * BIG];
    static int32_t pages[ROWS][CONTEXT / FR_PAGE], tokens[ROWS], ids[VOCAB];
    static fr_row_query queries[ROWS];
    const fr_matrix big = {FR_F32, rows, 2, BIG, BIG * sizeof(float)};
    const fr_pass_bounds bounds = {.rows = ROWS, .context = CONTEXT, .heads = HEADS, .head_dim = HEAD,
                                   .head_rows = ROWS, .vocab = VOCAB, .table = &big};
    const int32_t kv_of_head[HEADS] = {0, 0};
    const size_t cache = (size_t)ROWS * CONTEXT * HEAD * sizeof(uint16_t);
    fr_attn_view views[ROWS];
    fr_device *dev = open_device(&(fr_device_options){0});
    void *x = new_memory(dev, sizeof(float) * ROWS * BIG), *k = new_memory(dev, cache), *v = new_memory(dev, cache),
         *answers = new_memory(dev, ROWS * sizeof(fr_row_answer));
    for (int r = 0; r < ROWS; r++) {
        for (int i = 0; i < CONTEXT / FR_PAGE; i++)
            pages[r][i] = r * (CONTEXT / FR_PAGE) + i;
        views[r] = (fr_attn_view){.trunk_pages = pages[r], .n_trunk = CONTEXT};
    }
    for (int i = 0; i < VOCAB; i++)
        ids[i] = i;
    assert_true(reserve(dev, &bounds) > (size_t)ROWS * (CONTEXT / 256) * HEADS * HEAD * sizeof(float));
    const fr_kv kv = {k, v, 1, HEAD};
    const size_t before = fake_cuda_count().device_bytes;
    const int launches = fake_cuda_count().launches;
    assert_int_equal(ops->embed(dev, x, &big, tokens, ROWS), FR_OK);
    assert_int_equal(ops->attention(dev, x, x, &kv, views, kv_of_head, ROWS, HEADS, 1), FR_OK);
    assert_int_equal(ops->candidates(dev, x, ROWS, VOCAB, 0, ids, queries, answers, sizeof(fr_row_answer)), FR_OK);
    assert_int_equal(fake_cuda_count().launches, launches); /* nothing had to go for room */
    assert_int_equal(ops->sync(dev), FR_OK);
    assert_true(fake_cuda_count().launches > launches);
    assert_int_equal(fake_cuda_count().device_bytes, before);
    close_device(&dev);
}

static void test_reserve_refuses(void **state)
{
    (void)state;
    fr_pass_bounds bounds = {.rows = 1, .context = 1, .heads = 1, .head_dim = 12, .head_rows = 1, .vocab = 1,
                             .table = table()};
    fr_device *dev = open_device(&(fr_device_options){0});
    assert_int_equal(ops->reserve(dev, &bounds), FR_EUNSUPPORTED);
    bounds.head_dim = 8;
    bounds.head_rows = 1 << 14;
    fake_cuda_set_total_memory((size_t)8 << 20);
    assert_int_equal(ops->reserve(dev, &bounds), FR_ENOMEM);
    fake_cuda_reset();
    close_device(&dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserve), cmocka_unit_test(test_reserve_for_both_ways),
        cmocka_unit_test(test_reserve_for_rows), cmocka_unit_test(test_reserve_refuses),
        cmocka_unit_test(test_graph_of_a_pass), cmocka_unit_test(test_graphs_in_turn),
        cmocka_unit_test(test_result_comes_with_the_graph),
        cmocka_unit_test(test_block_grows),     cmocka_unit_test(test_sum_goes_with_the_norm),
        cmocka_unit_test(test_full_block),
        cmocka_unit_test(test_peers_end_a_wait),
        cmocka_unit_test(test_host_keeps_the_pace),
        cmocka_unit_test(test_rank_ahead_launches_all), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_failing_product), cmocka_unit_test(test_which_gpu),
        cmocka_unit_test(test_named_gpus),      cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
