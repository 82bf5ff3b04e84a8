/* comm_prove.c: see comm_prove.h. */
#include "comm_prove.h"

#include <stdio.h>
#include <stdlib.h>

#include "check.h"

typedef struct proof {
    fr_comm_over *o;
    uint8_t *x;        /* device memory for the largest trial */
    uint8_t *gathered; /* leader: of the largest gather */
} proof;

static fr_status put(const proof *p, const void *data, size_t bytes)
{
    return p->o->ops->upload(p->o->dev, p->x, data, bytes);
}

/* When what had been asked for failed, that is the cause, and not what then arrived. */
static fr_status fetch(const proof *p, void *out, size_t bytes)
{
    FR_TRY(p->o->ops->download(p->o->dev, out, p->x, bytes));
    return p->o->before ? p->o->before(p->o) : FR_OK;
}

static fr_status sum_ones(const proof *p, size_t n)
{
    fr_comm *c = &p->o->base;
    float one = 1, sum = 0;
    FR_TRY(put(p, &one, sizeof one));
    FR_TRY(c->ops->all_reduce_sum(c, (float *)(void *)p->x, n));
    FR_TRY(fetch(p, &sum, sizeof sum));
    if (sum != (float)c->size)
        return fr_fail(FR_EPEER, "rank %d: %s: the sum of %d ones is %g", c->rank, c->ops->name, c->size, (double)sum);
    return FR_OK;
}

static fr_status gather_ranks(const proof *p, size_t bytes)
{
    fr_comm *c = &p->o->base;
    const uint8_t rank = (uint8_t)c->rank;
    FR_TRY(put(p, &rank, sizeof rank));
    FR_TRY(c->ops->gather(c, p->x, bytes, p->gathered));
    for (int r = 0; r < c->size && c->rank == 0; r++) {
        const uint8_t got = p->gathered[(size_t)r * bytes];
        if (got != (uint8_t)r)
            return fr_fail(FR_EPEER, "rank 0: %s: gathered %d from rank %d", c->ops->name, got, r);
    }
    return FR_OK;
}

static fr_status broadcast_size(const proof *p, size_t bytes)
{
    fr_comm *c = &p->o->base;
    const uint8_t size = (uint8_t)c->size, none = 0;
    uint8_t got = 0;
    FR_TRY(put(p, c->rank == 0 ? &size : &none, sizeof size));
    FR_TRY(c->ops->broadcast(c, p->x, bytes));
    FR_TRY(fetch(p, &got, sizeof got));
    if (got != size)
        return fr_fail(FR_EPEER, "rank %d: %s: %d was broadcast, and arrived as %d", c->rank, c->ops->name, size, got);
    return FR_OK;
}

static fr_status try_all(const proof *p, const size_t *sizes, int n,
                         fr_status (*try)(const proof *p, size_t size))
{
    for (int i = 0; i < n; i++)
        if (sizes[i] > 0)
            FR_TRY(try(p, sizes[i]));
    return FR_OK;
}

static size_t largest(const size_t *sizes, int n)
{
    size_t most = 1;
    for (int i = 0; i < n; i++)
        most = sizes[i] > most ? sizes[i] : most;
    return most;
}

static fr_status make_room(proof *p, const fr_comm_trials *t)
{
    const size_t gather = largest(t->gathers, t->n_gathers), broadcast = largest(t->broadcasts, t->n_broadcasts);
    size_t bytes = largest(t->sums, t->n_sums) * sizeof(float);
    void *mem = NULL;
    bytes = gather > bytes ? gather : bytes;
    bytes = broadcast > bytes ? broadcast : bytes;
    FR_TRY(p->o->ops->mem_alloc(p->o->dev, bytes, &mem));
    p->x = mem;
    p->gathered = calloc((size_t)p->o->base.size, gather);
    return p->gathered ? FR_OK : fr_no_memory();
}

static fr_status run_trials(const proof *p, const fr_comm_trials *t)
{
    FR_TRY(try_all(p, t->sums, t->n_sums, sum_ones));
    FR_TRY(try_all(p, t->gathers, t->n_gathers, gather_ranks));
    FR_TRY(try_all(p, t->broadcasts, t->n_broadcasts, broadcast_size));
    return p->o->host->ops->agree(p->o->host, FR_OK);
}

/* For the cause of the last error, which is this rank's own or came from the rank that it names: the others may wait
 * for this one in a trial, and hear of it there. */
static fr_status give_up(fr_comm_over *o, fr_status st)
{
    char why[FR_COMM_WHY];
    snprintf(why, sizeof why, "%s", fr_cause());
    if (st != FR_EPEER)
        fr_fail(FR_EPEER, "rank %d: %.180s", o->base.rank, why);
    o->base.ops->give_up(&o->base);
    return o->before ? o->before(o) : FR_EPEER; /* it may have been given up for something else before */
}

fr_status fr_comm_over_prove(fr_comm_over *o, const fr_comm_trials *t)
{
    proof p = {.o = o};
    fr_status st = o->host->ops->agree(o->host, make_room(&p, t));
    if (st == FR_OK) {
        st = run_trials(&p, t);
        st = st == FR_OK ? st : give_up(o, st);
    }
    if (st == FR_OK)
        o->ops->mem_free(o->dev, p.x);
    else
        o->tried = p.x;
    free(p.gathered);
    return st;
}
