/* bpe.c: the merge loop. Bytes become symbols in a linked list; a heap holds the pairs that can
 * merge, lowest rank first and then leftmost, which is the order that training defines. A merge
 * changes the pairs at its two sides, so heap entries grow stale; an entry is believed only while
 * its two symbols are still the ids it was made for. That is sound: symbols only ever grow to the
 * right, so the same id at the same place is the same stretch of text. (Source: Sennrich, Haddow,
 * Birch 2016; the heap is the usual one, as in Hugging Face tokenizers' merge_all.) */
#include "bpe.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

typedef struct fr_bpe_symbol {
    int32_t id;         /* NONE: merged into its left neighbour, or a byte without a token */
    int32_t prev, next; /* places in the list; NONE at the ends */
} symbol;

typedef struct fr_bpe_pair {
    uint32_t rank;
    int32_t place; /* of the left symbol */
    int32_t left, right;
} pair;

enum { NONE = -1 };

static uint64_t pair_hash(int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    return h >> 32;
}

/* The merge of two ids, or NULL. */
static const fr_merge *find_merge(const fr_bpe *b, int32_t left, int32_t right)
{
    FR_INDEX_EACH(&b->index, pair_hash(left, right), i)
    {
        if (b->merges[i].left == left && b->merges[i].right == right)
            return &b->merges[i];
    }
    return NULL;
}

fr_status fr_bpe_init(fr_bpe *b, const fr_vocab *v, size_t n)
{
    for (int i = 0; i < 256; i++) {
        uint8_t byte = (uint8_t)i;
        b->byte_id[i] = fr_vocab_find(v, &byte, 1, FR_TOKEN_NORMAL);
    }
    b->merges = calloc(n + 1, sizeof *b->merges);
    if (!b->merges)
        return fr_no_memory();
    b->cap = n;
    return fr_index_init(&b->index, n);
}

void fr_bpe_free(fr_bpe *b)
{
    fr_index_free(&b->index);
    free(b->merges);
    *b = (fr_bpe){0};
}

/* The token with the bytes of both, or -1. Authors may have marked an ordinary token as one of
 * their own. */
static int32_t find_joined(const fr_vocab *v, int32_t left, int32_t right)
{
    uint8_t joined[FR_TOKEN_BYTES_MAX];
    size_t n_left, n_right;
    const uint8_t *l = fr_vocab_bytes(v, left, &n_left);
    const uint8_t *r = fr_vocab_bytes(v, right, &n_right);
    if (n_left + n_right > sizeof joined)
        return -1;
    memcpy(joined, l, n_left);
    memcpy(joined + n_left, r, n_right);
    int32_t id = fr_vocab_find(v, joined, n_left + n_right, FR_TOKEN_NORMAL);
    return id >= 0 ? id : fr_vocab_find(v, joined, n_left + n_right, FR_TOKEN_USER);
}

fr_status fr_bpe_add(fr_bpe *b, const fr_vocab *v, int32_t left, int32_t right)
{
    if (b->n >= b->cap)
        return fr_fail(FR_ELIMIT, "merge %zu is beyond the room given", b->n);
    int32_t result = find_joined(v, left, right);
    if (result < 0)
        return fr_fail(FR_EFORMAT, "merge %zu: the vocabulary has no token for %d and %d together",
                       b->n, left, right);
    const fr_merge *same = find_merge(b, left, right);
    b->merges[b->n] = (fr_merge){left, right, result};
    if (!same)
        fr_index_put(&b->index, pair_hash(left, right), (uint32_t)b->n);
    b->n++;
    return FR_OK;
}

void fr_bpe_scratch_free(fr_bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    *s = (fr_bpe_scratch){0};
}

/* --- the heap --- */

static int before(const pair *a, const pair *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->place < b->place;
}

static fr_status heap_push(fr_bpe_scratch *s, pair p)
{
    if (s->heap_len == s->heap_cap) {
        size_t cap = s->heap_cap ? s->heap_cap * 2 : 64;
        pair *heap = realloc(s->heap, cap * sizeof *heap);
        if (!heap)
            return fr_no_memory();
        s->heap = heap;
        s->heap_cap = cap;
    }
    size_t i = s->heap_len++;
    for (; i > 0 && before(&p, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = p;
    return FR_OK;
}

static pair heap_pop(fr_bpe_scratch *s)
{
    pair top = s->heap[0], last = s->heap[--s->heap_len];
    size_t i = 0;
    for (size_t child = 1; child < s->heap_len; child = 2 * i + 1) {
        if (child + 1 < s->heap_len && before(&s->heap[child + 1], &s->heap[child]))
            child++;
        if (!before(&s->heap[child], &last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    s->heap[i] = last;
    return top;
}

/* --- one piece --- */

static fr_status set_symbols(const fr_bpe *b, fr_bpe_scratch *s, const char *piece, size_t n)
{
    if (n > s->symbols_cap) {
        size_t cap = n + n / 2 + 64; /* some more, as pieces vary */
        symbol *symbols = realloc(s->symbols, cap * sizeof *symbols);
        if (!symbols)
            return fr_no_memory();
        s->symbols = symbols;
        s->symbols_cap = cap;
    }
    for (size_t i = 0; i < n; i++)
        s->symbols[i] = (symbol){b->byte_id[(uint8_t)piece[i]], (int32_t)i - 1,
                                 i + 1 < n ? (int32_t)i + 1 : NONE};
    return FR_OK;
}

/* Queues the pair whose left symbol is at `place`, if it can merge. */
static fr_status queue_pair(const fr_bpe *b, fr_bpe_scratch *s, int32_t place)
{
    int32_t next = place == NONE ? NONE : s->symbols[place].next;
    if (next == NONE)
        return FR_OK;
    int32_t left = s->symbols[place].id, right = s->symbols[next].id;
    const fr_merge *m = find_merge(b, left, right);
    if (!m)
        return FR_OK;
    return heap_push(s, (pair){(uint32_t)(m - b->merges), place, left, right});
}

static fr_status apply(const fr_bpe *b, fr_bpe_scratch *s, const pair *p)
{
    symbol *left = &s->symbols[p->place];
    if (left->id != p->left || left->next == NONE || s->symbols[left->next].id != p->right)
        return FR_OK; /* stale */
    symbol *right = &s->symbols[left->next];
    left->id = b->merges[p->rank].result;
    left->next = right->next;
    right->id = NONE;
    if (left->next != NONE)
        s->symbols[left->next].prev = p->place;
    FR_TRY(queue_pair(b, s, left->prev));
    return queue_pair(b, s, p->place);
}

fr_status fr_bpe_piece(const fr_bpe *b, fr_bpe_scratch *s, const char *piece, size_t n, fr_ids *ids)
{
    if (n == 0)
        return FR_OK;
    FR_TRY(set_symbols(b, s, piece, n));
    s->heap_len = 0;
    for (size_t i = 0; i + 1 < n; i++)
        FR_TRY(queue_pair(b, s, (int32_t)i));
    while (s->heap_len) {
        pair p = heap_pop(s);
        FR_TRY(apply(b, s, &p));
    }
    for (int32_t i = 0; i != NONE; i = s->symbols[i].next) {
        if (s->symbols[i].id != NONE)
            FR_TRY(fr_ids_put(ids, &s->symbols[i].id, 1));
    }
    return FR_OK;
}
