/* test_draft_vocab.c: the tokens of a rough head: what is always in, the file's order, the order by
 * id without one, every error of the file, and writing it. On the embedded pair's tokenizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "draft_vocab.h"
#include "fault_alloc.h"

#define TARGET FORERUN_SOURCE_DIR "/deploy/models/tiny/tiny-target.gguf"

static fr_tokenizer *tokenizer;
static char folder[] = "/tmp/forerun-vocab-XXXXXX", model[64], list[80];

static void ok(fr_status st)
{
    if (st != FR_OK)
        fail_msg("%s", fr_cause());
}

static void write_list(const char *text, size_t n)
{
    FILE *f = fopen(list, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static int holds(const fr_ids *ids, int32_t id)
{
    for (size_t i = 0; i < ids->len; i++)
        if (ids->data[i] == id)
            return 1;
    return 0;
}

/* Ids that may be left out, by id: the first n of them. */
static int dispensable(int32_t *out, int n)
{
    int found = 0;
    for (int32_t id = 0; id < fr_tokenizer_n_vocab(tokenizer) && found < n; id++) {
        size_t bytes = 0;
        fr_token_bytes(tokenizer, id, &bytes);
        if (bytes != 1 && !fr_tokenizer_is_special(tokenizer, id) &&
            !fr_tokenizer_is_end(tokenizer, id))
            out[found++] = id;
    }
    return found;
}

static void assert_well_formed(const fr_ids *ids)
{
    int32_t n = fr_tokenizer_n_vocab(tokenizer);
    for (size_t i = 1; i < ids->len; i++)
        assert_true(ids->data[i - 1] < ids->data[i]);
    for (int32_t id = 0; id < n; id++) {
        size_t bytes = 0;
        fr_token_bytes(tokenizer, id, &bytes);
        if (bytes == 1 || fr_tokenizer_is_end(tokenizer, id) ||
            fr_tokenizer_is_special(tokenizer, id))
            assert_true(holds(ids, id));
    }
}

static void test_size(void **state)
{
    (void)state;
    assert_int_equal(fr_draft_vocab_size(tokenizer, FR_DRAFT_VOCAB_AUTO), 0);
    assert_int_equal(fr_draft_vocab_size(tokenizer, 0), 0);
    assert_int_equal(fr_draft_vocab_size(tokenizer, 300), 300);
    assert_int_equal(fr_draft_vocab_size(tokenizer, fr_tokenizer_n_vocab(tokenizer)), 0);
}

static void test_by_id(void **state)
{
    (void)state;
    fr_ids ids = {0};
    int32_t rest[512];
    unlink(list);
    ok(fr_draft_vocab_read(model, tokenizer, 1, &ids));
    assert_well_formed(&ids);
    int always = (int)ids.len;
    ok(fr_draft_vocab_read(model, tokenizer, always + 5, &ids));
    assert_well_formed(&ids);
    assert_int_equal(ids.len, always + 5);
    assert_int_equal(dispensable(rest, 6), 6);
    for (int i = 0; i < 6; i++)
        assert_int_equal(holds(&ids, rest[i]), i < 5);
    ok(fr_draft_vocab_read(model, tokenizer, 100000, &ids));
    assert_int_equal(ids.len, fr_tokenizer_n_vocab(tokenizer));
    fr_ids_free(&ids);
}

/* The file's first ones, then the lowest ids; what is always in takes no place from them. */
static void test_by_file(void **state)
{
    (void)state;
    fr_ids ids = {0};
    int32_t rest[512];
    char text[128];
    int n = dispensable(rest, 512);
    unlink(list);
    ok(fr_draft_vocab_read(model, tokenizer, 1, &ids));
    int always = (int)ids.len;
    int len = snprintf(text, sizeof text, "%d\n%d\n%d\n%d", rest[n - 1], ids.data[0], rest[n - 3],
                       rest[n - 2]);
    write_list(text, (size_t)len);
    ok(fr_draft_vocab_read(model, tokenizer, always + 2, &ids));
    assert_well_formed(&ids);
    assert_int_equal(ids.len, always + 2);
    assert_true(holds(&ids, rest[n - 1]) && holds(&ids, rest[n - 3]));
    ok(fr_draft_vocab_read(model, tokenizer, always + 5, &ids));
    assert_int_equal(ids.len, always + 5);
    assert_true(holds(&ids, rest[n - 2]) && holds(&ids, rest[0]) && holds(&ids, rest[1]));
    fr_ids_free(&ids);
}

static void assert_refused(const char *text, size_t n, fr_status st, const char *words)
{
    fr_ids ids = {0};
    write_list(text, n);
    assert_int_equal(fr_draft_vocab_read(model, tokenizer, 300, &ids), st);
    if (!strstr(fr_cause(), list) || !strstr(fr_cause(), words))
        fail_msg("\"%s\" does not say \"%s\"", fr_cause(), words);
    fr_ids_free(&ids);
}

static void test_bad_files(void **state)
{
    (void)state;
    const char *const not_ids[] = {
        "7\nx\n",   "7\n\n",
        "7\n-3\n",  "7\n 3\n",
        "7\n3x\n",  "7\n3 4\n",
        "7\n+3\n",  "7\n99999999999999999999\n",
        "7\n3\r\n", "7\n# a remark that is longer than any line may be\n"};
    for (size_t i = 0; i < sizeof not_ids / sizeof *not_ids; i++)
        assert_refused(not_ids[i], strlen(not_ids[i]), FR_EFORMAT, ":2: not a token id");
    assert_refused("7\n3\n512\n", 8, FR_EFORMAT, ":3: token 512 is not in the vocabulary of 512");
    assert_refused("7\n3\n7\n", 6, FR_EFORMAT, ":3: token 7 stands there twice");
    assert_refused("", 0, FR_EFORMAT, "empty");
    unlink(list);
    assert_int_equal(mkdir(list, 0700), 0);
    fr_ids ids = {0};
    assert_int_equal(fr_draft_vocab_read(model, tokenizer, 300, &ids), FR_EIO);
    assert_non_null(strstr(fr_cause(), list));
    rmdir(list);
}

static void test_written_and_read(void **state)
{
    (void)state;
    fr_ids ids = {0};
    int64_t counts[512] = {0};
    int32_t rest[512];
    char *path = NULL, line[32];
    int n = dispensable(rest, 512);
    counts[rest[n - 1]] = 4;
    counts[rest[n - 4]] = 9;
    counts[rest[n - 2]] = 4;
    ok(fr_draft_vocab_write(model, tokenizer, counts, 4, &path));
    assert_string_equal(path, list);
    free(path);
    FILE *f = fopen(list, "r");
    assert_non_null(f);
    const int32_t want[] = {rest[n - 4], rest[n - 2], rest[n - 1], 0};
    for (int i = 0; i < 4; i++) {
        assert_non_null(fgets(line, sizeof line, f));
        assert_int_equal(atoi(line), want[i]);
    }
    assert_null(fgets(line, sizeof line, f));
    fclose(f);
    ok(fr_draft_vocab_read(model, tokenizer, 1, &ids));
    ok(fr_draft_vocab_read(model, tokenizer, (int)ids.len + 3, &ids));
    assert_true(holds(&ids, rest[n - 4]) && holds(&ids, rest[n - 2]) && holds(&ids, rest[n - 1]));
    fr_ids_free(&ids);
    assert_int_equal(fr_draft_vocab_write("/no/such/model", tokenizer, counts, 4, &path), FR_EIO);
    assert_non_null(strstr(fr_cause(), "/no/such/model.vocab"));
}

static void test_out_of_memory(void **state)
{
    (void)state;
    int64_t counts[512] = {0};
    for (long n = 0;; n++) {
        fr_ids ids = {0};
        char *path = NULL;
        fr_fault_alloc_arm(n);
        fr_status st = fr_draft_vocab_write(model, tokenizer, counts, 300, &path);
        if (st == FR_OK)
            st = fr_draft_vocab_read(model, tokenizer, 300, &ids);
        bool failed = fr_fault_alloc_disarm();
        free(path);
        fr_ids_free(&ids);
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        if (!failed)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size),      cmocka_unit_test(test_by_id),
        cmocka_unit_test(test_by_file),   cmocka_unit_test(test_written_and_read),
        cmocka_unit_test(test_bad_files), cmocka_unit_test(test_out_of_memory),
    };
    fr_model_file *file = NULL;
    if (!mkdtemp(folder) || fr_model_file_open(TARGET, &file) != FR_OK ||
        fr_tokenizer_from_model(file, &tokenizer) != FR_OK)
        return 1;
    snprintf(model, sizeof model, "%s/some.gguf", folder);
    snprintf(list, sizeof list, "%s.vocab", model);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    fr_tokenizer_free(&tokenizer);
    fr_model_file_close(&file);
    unlink(list);
    rmdir(folder);
    return failed;
}
