/* test_load_slices.c: of a model's file a rank reads its own slices, rows and columns alike, and not the other ranks':
 * what the kernel holds of a file that it had forgotten before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gguf_writer.h"
#include "model.h"

enum { DIM = 64, HEADS = 4, FF = 131072, VOCAB = 64, RANKS = 4, ALIGNMENT = 32, GGUF_F32 = 0, GGUF_BF16 = 30 };

typedef struct tensor {
    const char *name;
    uint64_t rows, cols; /* BF16; rows 0: a vector, F32 */
} tensor;

static const tensor tensors[] = {
    {"token_embd.weight", VOCAB, DIM},      {"output_norm.weight", 0, DIM},
    {"blk.0.attn_norm.weight", 0, DIM},     {"blk.0.ffn_norm.weight", 0, DIM},
    {"blk.0.attn_q.weight", DIM, DIM},      {"blk.0.attn_k.weight", DIM, DIM},
    {"blk.0.attn_v.weight", DIM, DIM},      {"blk.0.attn_output.weight", DIM, DIM},
    {"blk.0.ffn_gate.weight", FF, DIM},     {"blk.0.ffn_up.weight", FF, DIM},
    {"blk.0.ffn_down.weight", DIM, FF},
};
enum { N_TENSORS = sizeof tensors / sizeof *tensors };

static size_t bytes_of(const tensor *t)
{
    return t->rows > 0 ? t->rows * t->cols * 2 : t->cols * 4;
}

/* All weights are 0. */
static void write_model(const char *path)
{
    fr_buf b = {0};
    uint64_t offset = 0;
    gguf_header(&b, 3, N_TENSORS, 7);
    gguf_meta_str(&b, "general.architecture", "llama");
    gguf_meta_u32(&b, "llama.block_count", 1);
    gguf_meta_u32(&b, "llama.embedding_length", DIM);
    gguf_meta_u32(&b, "llama.attention.head_count", HEADS);
    gguf_meta_u32(&b, "llama.feed_forward_length", FF);
    gguf_meta_u32(&b, "llama.context_length", 128);
    gguf_meta_f32(&b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    for (int i = 0; i < N_TENSORS; i++) {
        const uint64_t dims[2] = {tensors[i].cols, tensors[i].rows};
        const int is_vector = tensors[i].rows == 0;
        gguf_tensor(&b, tensors[i].name, is_vector ? GGUF_F32 : GGUF_BF16, is_vector ? 1 : 2, dims, offset);
        offset += bytes_of(&tensors[i]);
    }
    static const char zeros[ALIGNMENT];
    gguf_bytes(&b, zeros, (ALIGNMENT - b.len % ALIGNMENT) % ALIGNMENT);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    char *data = calloc(1, offset);
    assert_non_null(data);
    assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
    assert_int_equal(fwrite(data, 1, offset, f), offset);
    assert_int_equal(fclose(f), 0);
    free(data);
    fr_buf_free(&b);
}

/* False where files never leave memory (tmpfs). */
static bool forget(const char *path)
{
    unsigned char held = 0;
    const int fd = open(path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    void *first = mmap(NULL, 1, PROT_READ, MAP_PRIVATE, fd, 0);
    assert_ptr_not_equal(first, MAP_FAILED);
    assert_int_equal(mincore(first, 1, &held), 0);
    munmap(first, 1);
    close(fd);
    return (held & 1) == 0;
}

/* The share of a tensor's bytes, about, that is in memory. */
static double share_held(const fr_model_file *file, const char *name)
{
    static unsigned char held[1 << 13];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const fr_tensor *t = fr_model_file_tensor(file, name);
    assert_non_null(t);
    const uintptr_t from = (uintptr_t)t->data / page * page, end = (uintptr_t)t->data + t->bytes;
    const size_t n = (end - from + page - 1) / page;
    size_t n_held = 0;
    assert_true(n <= sizeof held);
    assert_int_equal(mincore((void *)from, end - from, held), 0);
    for (size_t i = 0; i < n; i++)
        n_held += held[i] & 1;
    return (double)n_held / (double)n;
}

static void a_rank_reads_its_own_slices(void **state)
{
    (void)state;
    char path[] = "load-slices-XXXXXX"; /* in the build's folder, which is on a disk where /tmp may not be */
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    write_model(path);
    const bool forgotten = forget(path);

    const fr_ops *ops = &fr_ops_cpu_ref;
    const fr_ids none = {0};
    const fr_model_load_options how = {.rank = 1, .n_ranks = RANKS, .rough_tokens = &none};
    fr_device *dev = NULL;
    fr_model_file *file = NULL;
    fr_model *model = NULL;
    assert_int_equal(ops->open(&(fr_device_options){.threads = 1}, &dev), FR_OK);
    const fr_status opened = fr_model_file_open(path, &file);
    unlink(path);
    assert_int_equal(opened, FR_OK);
    if (fr_model_load(file, ops, dev, &how, &model) != FR_OK)
        fail_msg("%s", fr_cause());
    /* Of what stands before these, some was read along with the header. */
    const double up = share_held(file, "blk.0.ffn_up.weight"), down = share_held(file, "blk.0.ffn_down.weight");
    fr_model_free(&model);
    fr_model_file_close(&file);
    ops->close(&dev);
    if (!forgotten) {
        print_message("skipped: this file system forgets no files\n");
        skip();
    }
    print_message("rank 1 of %d: in memory are %.0f%% of up, which is split by rows, %.0f%% of down, by columns\n",
                  RANKS, 100 * up, 100 * down);
    assert_true(up >= 1.0 / RANKS && up < 1.5 / RANKS);
    assert_true(down >= 1.0 / RANKS && down < 1.5 / RANKS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_rank_reads_its_own_slices)};
    return cmocka_run_group_tests_name("load_slices", tests, NULL, NULL);
}
