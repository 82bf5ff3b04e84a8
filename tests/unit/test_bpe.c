/* test_bpe.c: the merge loop against the plain definition (find the lowest-ranked, leftmost pair;
 * join it; again), and on pieces so long that anything quadratic would show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "bpe.h"
#include "fault_alloc.h"

enum { LETTERS = 3, MERGES = 40, MAX_WORD = 60 };

static uint32_t next_random(uint32_t *s)
{
    *s = *s * 1664525 + 1013904223;
    return *s >> 8;
}

/* A vocabulary over a, b, c, and merges of tokens made before, as training would find them. */
static void make(uint32_t seed, fr_vocab *v, fr_bpe *b)
{
    struct {
        char text[FR_TOKEN_BYTES_MAX];
        size_t n;
    } *made = calloc(LETTERS + MERGES, sizeof *made);
    int sides[MERGES][2], n_tokens = LETTERS, n_merges = 0;
    assert_non_null(made);
    assert_int_equal(fr_vocab_init(v, LETTERS + MERGES, 1 << 16), FR_OK);
    for (int i = 0; i < LETTERS; i++) {
        made[i].text[0] = (char)('a' + i);
        made[i].n = 1;
        assert_int_equal(fr_vocab_add(v, made[i].text, 1, FR_TOKEN_NORMAL), FR_OK);
    }
    while (n_merges < MERGES) {
        int l = (int)(next_random(&seed) % (uint32_t)n_tokens),
            r = (int)(next_random(&seed) % (uint32_t)n_tokens);
        int known = 0;
        size_t n = made[l].n + made[r].n;
        if (n > 200)
            continue;
        memcpy(made[n_tokens].text, made[l].text, made[l].n);
        memcpy(made[n_tokens].text + made[l].n, made[r].text, made[r].n);
        made[n_tokens].n = n;
        for (int i = 0; i < n_tokens; i++)
            known |= made[i].n == n && memcmp(made[i].text, made[n_tokens].text, n) == 0;
        sides[n_merges][0] = l;
        sides[n_merges][1] = r;
        n_merges++;
        if (!known) /* else the same token by another way */
            assert_int_equal(fr_vocab_add(v, made[n_tokens++].text, n, FR_TOKEN_NORMAL), FR_OK);
    }
    assert_int_equal(fr_vocab_index(v), FR_OK);
    assert_int_equal(fr_bpe_init(b, v, MERGES), FR_OK);
    for (int i = 0; i < MERGES; i++)
        assert_int_equal(fr_bpe_add(b, v, sides[i][0], sides[i][1]), FR_OK);
    free(made);
}

static size_t plain_merges(const fr_bpe *b, const char *word, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = b->byte_id[(uint8_t)word[i]];
    for (;;) {
        size_t best = b->n, at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            for (size_t m = 0; m < best; m++) {
                if (b->merges[m].left == ids[i] && b->merges[m].right == ids[i + 1]) {
                    best = m;
                    at = i;
                }
            }
        }
        if (best == b->n)
            return n;
        ids[at] = b->merges[best].result;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void test_against_plain(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 60; seed++) {
        fr_vocab v = {0};
        fr_bpe b = {0};
        fr_bpe_scratch scratch = {0};
        uint32_t random = seed * 77;
        make(seed, &v, &b);
        for (int w = 0; w < 100; w++) {
            char word[MAX_WORD];
            int32_t want[MAX_WORD];
            fr_ids ids = {0};
            size_t n = next_random(&random) % (MAX_WORD + 1);
            for (size_t i = 0; i < n; i++)
                word[i] = (char)('a' + next_random(&random) % LETTERS);
            size_t n_want = plain_merges(&b, word, n, want);
            assert_int_equal(fr_bpe_piece(&b, &scratch, word, n, &ids), FR_OK);
            assert_int_equal(ids.len, n_want);
            assert_true(n_want == 0 || memcmp(ids.data, want, n_want * sizeof *want) == 0);
            fr_ids_free(&ids);
        }
        fr_bpe_scratch_free(&scratch);
        fr_bpe_free(&b);
        fr_vocab_free(&v);
    }
}

/* Tokens of 1, 2, 4 .. 512 a's: a megabyte of a's merges all the way. */
static void test_long_piece(void **state)
{
    (void)state;
    enum { LEVELS = 10, N = 1 << 20 };
    fr_vocab v = {0};
    fr_bpe b = {0};
    fr_bpe_scratch scratch = {0};
    fr_ids ids = {0};
    char *word = malloc(N);
    assert_non_null(word);
    memset(word, 'a', N);
    assert_int_equal(fr_vocab_init(&v, LEVELS, 1 << LEVELS), FR_OK);
    for (int i = 0; i < LEVELS; i++)
        assert_int_equal(fr_vocab_add(&v, word, (size_t)1 << i, FR_TOKEN_NORMAL), FR_OK);
    assert_int_equal(fr_vocab_index(&v), FR_OK);
    assert_int_equal(fr_bpe_init(&b, &v, LEVELS - 1), FR_OK);
    for (int i = 0; i + 1 < LEVELS; i++)
        assert_int_equal(fr_bpe_add(&b, &v, i, i), FR_OK);
    assert_int_equal(fr_bpe_piece(&b, &scratch, word, N, &ids), FR_OK);
    assert_int_equal(ids.len, N >> (LEVELS - 1));
    for (size_t i = 0; i < ids.len; i++)
        assert_int_equal(ids.data[i], LEVELS - 1);
    fr_ids_free(&ids);
    fr_bpe_scratch_free(&scratch);
    fr_bpe_free(&b);
    fr_vocab_free(&v);
    free(word);
}

static void test_refusals(void **state)
{
    (void)state;
    fr_vocab v = {0};
    fr_bpe b = {0};
    char long_token[FR_TOKEN_BYTES_MAX + 1] = {0};
    assert_int_equal(fr_vocab_init(&v, 3, 8), FR_OK);
    assert_int_equal(fr_vocab_add(&v, "", 0, FR_TOKEN_NORMAL), FR_EFORMAT);
    assert_int_equal(fr_vocab_add(&v, long_token, sizeof long_token, FR_TOKEN_NORMAL), FR_EFORMAT);
    assert_int_equal(fr_vocab_add(&v, "123456789", 9, FR_TOKEN_NORMAL), FR_ELIMIT);
    assert_int_equal(fr_vocab_add(&v, "a", 1, FR_TOKEN_NORMAL), FR_OK);
    assert_int_equal(fr_vocab_add(&v, "aa", 2, FR_TOKEN_CONTROL), FR_OK);
    assert_int_equal(fr_vocab_add(&v, "", 0, FR_TOKEN_INERT), FR_OK);
    assert_int_equal(fr_vocab_add(&v, "b", 1, FR_TOKEN_NORMAL), FR_ELIMIT);
    assert_int_equal(fr_vocab_index(&v), FR_OK);
    assert_int_equal(fr_bpe_init(&b, &v, 1), FR_OK);
    assert_int_equal(fr_bpe_add(&b, &v, 0, 0), FR_EFORMAT); /* no merge makes a control token */
    assert_int_equal(b.byte_id['a'], 0);
    assert_int_equal(b.byte_id['b'], -1);
    fr_bpe_free(&b);
    fr_vocab_free(&v);
    fr_bpe_free(&b);
    fr_vocab_free(&v);
}

static void test_no_memory(void **state)
{
    (void)state;
    fr_vocab v = {0};
    fr_bpe b = {0};
    make(1, &v, &b);
    char word[2000];
    memset(word, 'a', sizeof word);
    for (long n = 0;; n++) {
        fr_bpe_scratch scratch = {0};
        fr_ids ids = {0};
        fr_fault_alloc_arm(n);
        fr_status st = fr_bpe_piece(&b, &scratch, word, sizeof word, &ids);
        int failed = fr_fault_alloc_disarm();
        fr_bpe_scratch_free(&scratch);
        fr_ids_free(&ids);
        assert_int_equal(st, failed ? FR_ENOMEM : FR_OK);
        if (!failed)
            break;
    }
    fr_bpe_free(&b);
    fr_vocab_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_plain),
        cmocka_unit_test(test_long_piece),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
