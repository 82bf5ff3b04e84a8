/* comm_nccl.c: sums, gathers and broadcasts on the GPU's stream through NCCL; the only file that sees nccl.h.
 *
 * Sums. ncclAllReduce picks its algorithm, hence its order of additions, by the size of the message, and a row's sum
 * would depend on what else is in the batch. So unless batch_invariant is off the values only travel by NCCL and are
 * added by the backend, always ((r0 + r1) + r2)..., to the same bits as comm_mpi's:
 *   small messages, 2 ranks   all-gather, each adds all;
 *   large messages            each rank adds its piece for all (all to all), then the pieces are brought to everyone.
 * What that costs beside ncclAllReduce: size - 1 small kernels a sum, and for small messages size / 2 times the bytes.
 *
 * Order. Every call is enqueued with the device's own work, and so can be recorded and replayed, on all ranks or on
 * none (NCCL User Guide, "Using NCCL with CUDA Graphs"): the devices see to that through compare(). Scratch grows only
 * after a sync, when nothing recorded is under way; what is recorded later holds the new address. Where the largest sum
 * and gather are known at opening, it does not grow later.
 *
 * Gathers are all-gathers into scratch, which the leader then fetches; like broadcasts they are commands of the pass,
 * so answers reach the leader, and its embedded rows the others, without the hosts. What is in host memory, such as
 * plans, stays with the host communicator: a collective that waits in the GPU's queue for the next plan would keep an
 * idle GPU busy.
 *
 * Lost ranks. The communicator is non-blocking: a call returns at once, and settle() bounds the wait for what it began.
 * What was launched hangs in the device's queue when a rank does not come to it, so the device calls look() while
 * the host waits, which gives the group up when NCCL knows of an error, when the host communicator does, or when
 * the host has waited for timeout_ms since its last call here; compare() has the same limit. Giving up: a roll call
 * over the host communicator, so that all ranks leave at once and the cause names those not heard of. The call that
 * lets the kernels leave, ncclCommAbort, waits for the GPU and has been seen to hang (NCCL issue 863), and under MPI a
 * rank that has left by then takes the others along: so it is made when this is closed, after the cause was told, and
 * not waited for without end. Until then memory of the device cannot be freed: that waits for the kernels.
 *
 * Easy to get wrong: launch functions cannot return an error, so they leave it in `launched`, and every later call
 * looks there first, also those that are only passed on: an answer must not travel when its sums did not. A gather
 * looks at its end, too.
 * ncclCommDestroy and ncclCommAbort wait until no recorded pass holds the communicator: the device must have forgotten
 * them by then (set_peers). */
#include "comm_device.h"

#include <nccl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "bounded_call.h"
#include "check.h"
#include "comm_exchange.h"
#include "comm_nccl_late.h"
#include "comm_over.h"
#include "comm_prove.h"
#include "comm_roll.h"
#include "comm_wait.h"
#include "log.h"

enum {
    SMALL_SUM = 64 * 1024, /* floats; above it a second collective costs less than the all-gather's extra bytes */
    ABORT_MS = 2000,       /* for NCCL to leave the GPU */
};

typedef struct nccl_comm {
    fr_comm_over over;
    ncclComm_t nccl; /* NULL: not begun yet, or left */
    bool connected;
    bool in_rank_order;
    int timeout_ms;  /* of connecting, until that is done */
    float *parts;    /* scratch, device memory [cap_parts] */
    size_t cap_parts;
    uint64_t n_calls; /* collectives enqueued */
    bool waiting;    /* the device was looked at since the last call */
    fr_comm_wait wait; /* of those looks */
    ncclResult_t launched;  /* the first error of a launch */
    fr_device_peers peers;
    int64_t (*compared)[2]; /* [size] */
    char cause[400];        /* of giving up; "": not given up */
} nccl_comm;

static nccl_comm *of(fr_comm *c)
{
    return (nccl_comm *)c;
}

static fr_status check_nccl(const nccl_comm *m, ncclResult_t rc, const char *what)
{
    if (rc == ncclSuccess)
        return FR_OK;
    return fr_fail(FR_EPEER, "rank %d: NCCL: %s: %s (%s)", m->over.base.rank, what, ncclGetErrorString(rc),
                   ncclGetLastError(m->nccl));
}

static fr_comm_wait begin_wait(const nccl_comm *m)
{
    return fr_comm_wait_begin((fr_comm_patience){.ms = m->timeout_ms, .stop = m->over.host->patience.stop});
}

/* Waits for what `rc` says was only begun. ncclInProgress: the time was over. */
static ncclResult_t settle(const nccl_comm *m, ncclResult_t rc)
{
    fr_comm_wait wait = begin_wait(m);
    while (rc == ncclInProgress) {
        ncclResult_t asked = ncclCommGetAsyncError(m->nccl, &rc);
        if (asked != ncclSuccess)
            return asked;
        if (rc == ncclInProgress && fr_comm_wait_check(&wait) != FR_OK)
            return rc;
        sched_yield();
    }
    return rc;
}

/* ---- giving up */

/* why "": another rank began it, and says why. */
static fr_status give_up(nccl_comm *m, const char *why)
{
    fr_comm *host = m->over.host;
    char word[FR_COMM_WHY] = "", silent[128] = "";
    bool *heard = calloc((size_t)host->size, sizeof *heard);
    snprintf(word, sizeof word, "%s", why);
    if (heard && host->ops->roll_call && host->ops->roll_call(host, FR_COMM_LEAVE_MS, word, heard) == FR_OK) {
        fr_comm_name_silent(heard, host->size, silent, sizeof silent);
        if (!silent[0])
            snprintf(silent, sizeof silent, "; every rank is still there");
    }
    free(heard);
    snprintf(m->cause, sizeof m->cause, "%s%s", word[0] ? word : "a rank gave the group up", silent);
    return fr_fail(FR_EPEER, "%s", m->cause);
}

static fr_status give_up_for(nccl_comm *m, ncclResult_t rc, const char *what)
{
    check_nccl(m, rc, what);
    char why[FR_COMM_WHY];
    snprintf(why, sizeof why, "%s", fr_cause());
    return give_up(m, why);
}

/* What is known without waiting. */
static fr_status look_for_errors(nccl_comm *m)
{
    fr_comm *host = m->over.host;
    ncclResult_t state = m->launched;
    if (m->cause[0])
        return fr_fail(FR_EPEER, "%s", m->cause);
    if (state == ncclInProgress)
        return give_up_for(m, state, "a collective was not launched in time");
    if (state == ncclSuccess) {
        const ncclResult_t asked = ncclCommGetAsyncError(m->nccl, &state);
        state = asked != ncclSuccess ? asked : state;
    }
    if (state != ncclSuccess && state != ncclInProgress)
        return give_up_for(m, state, "a collective failed");
    if (host->ops->look && host->ops->look(host) != FR_OK)
        return give_up(m, "");
    return FR_OK;
}

/* While the host waits for the device. */
static fr_status look(void *ctx)
{
    nccl_comm *m = ctx;
    FR_TRY(look_for_errors(m));
    if (!m->waiting)
        m->wait = begin_wait(m);
    m->waiting = true;
    const fr_status over = m->n_calls > 0 ? fr_comm_wait_check(&m->wait) : FR_OK;
    if (over == FR_OK)
        return FR_OK;
    char why[FR_COMM_WHY], how[64];
    snprintf(how, sizeof how, "did not end in %d ms", m->timeout_ms);
    snprintf(why, sizeof why, "rank %d: collective %llu %s", m->over.base.rank, (unsigned long long)m->n_calls,
             over == FR_ECANCELLED ? "had not ended when the rank was stopped" : how);
    return give_up(m, why);
}

/* Before every call, and after one that waited: the host gets on, so the time that it may wait begins anew. */
static fr_status before(fr_comm_over *o)
{
    nccl_comm *m = of(&o->base);
    m->waiting = false;
    return look_for_errors(m);
}

static fr_status compare(void *ctx, const int64_t mine[2], int64_t least[2], int64_t greatest[2])
{
    nccl_comm *m = ctx;
    fr_comm *host = m->over.host;
    FR_TRY(before(&m->over));
    if (host->ops->all_gather(host, mine, sizeof *m->compared, m->compared, m->timeout_ms) != FR_OK) {
        char why[FR_COMM_WHY];
        snprintf(why, sizeof why, "%s", fr_cause());
        return give_up(m, why);
    }
    for (int i = 0; i < 2; i++) {
        least[i] = greatest[i] = mine[i];
        for (int r = 0; r < host->size; r++) {
            const int64_t theirs = m->compared[r][i];
            least[i] = theirs < least[i] ? theirs : least[i];
            greatest[i] = theirs > greatest[i] ? theirs : greatest[i];
        }
    }
    return FR_OK;
}

static void nccl_give_up(fr_comm *c)
{
    char why[FR_COMM_WHY];
    snprintf(why, sizeof why, "%s", fr_cause());
    if (!of(c)->cause[0])
        give_up(of(c), why);
}

/* ---- sums */

/* What a launch needs; copied into recorded passes. */
typedef struct sum_args {
    nccl_comm *m;
    fr_comm_exchange e;
} sum_args;

static void note(nccl_comm *m, ncclResult_t rc)
{
    rc = settle(m, rc);
    if (m->launched == ncclSuccess)
        m->launched = rc;
}

static bool may_launch(const nccl_comm *m)
{
    return m->nccl && !m->cause[0] && m->launched == ncclSuccess;
}

static void launch_all_reduce(void *stream, const void *args)
{
    const sum_args *a = args;
    if (may_launch(a->m))
        note(a->m, ncclAllReduce(a->e.x, a->e.x, a->e.n, ncclFloat, ncclSum, a->m->nccl, stream));
}

static void launch_all_gather(void *stream, const void *args)
{
    const sum_args *a = args;
    if (may_launch(a->m))
        note(a->m, ncclAllGather(a->e.x, a->e.parts, a->e.n, ncclFloat, a->m->nccl, stream));
}

/* In one group, from and to every other rank. */
static void exchange(const sum_args *a, void *stream, fr_comm_transfer (*with)(const fr_comm_exchange *e, int rank))
{
    nccl_comm *m = a->m;
    if (!may_launch(m))
        return;
    ncclResult_t rc = ncclGroupStart();
    for (int r = 0; r < m->over.base.size && rc == ncclSuccess; r++) {
        const fr_comm_transfer t = with(&a->e, r);
        if (r != m->over.base.rank && t.n_send > 0)
            rc = ncclSend(t.send, t.n_send, ncclFloat, r, m->nccl, stream);
        if (r != m->over.base.rank && t.n_receive > 0 && rc == ncclSuccess)
            rc = ncclRecv(t.receive, t.n_receive, ncclFloat, r, m->nccl, stream);
    }
    const ncclResult_t end = ncclGroupEnd();
    note(m, rc != ncclSuccess ? rc : end);
}

static void launch_scatter(void *stream, const void *args)
{
    exchange(args, stream, fr_comm_scatter);
}

static void launch_collect(void *stream, const void *args)
{
    exchange(args, stream, fr_comm_collect);
}

/* Room for n floats of scratch. */
static fr_status make_room(nccl_comm *m, size_t n)
{
    fr_comm_over *o = &m->over;
    void *mem = NULL;
    if (n <= m->cap_parts)
        return FR_OK;
    FR_TRY(o->ops->sync(o->dev)); /* earlier sums may still use it */
    o->ops->mem_free(o->dev, m->parts);
    m->parts = NULL;
    m->cap_parts = 0;
    FR_TRY(o->ops->mem_alloc(o->dev, n * sizeof *m->parts, &mem));
    m->parts = mem;
    m->cap_parts = n;
    return FR_OK;
}

static fr_status enqueue(nccl_comm *m, void (*launch)(void *, const void *), const fr_comm_exchange *e)
{
    const sum_args args = {.m = m, .e = *e};
    return m->over.ops->enqueue(m->over.dev, launch, &args, sizeof args);
}

static fr_status add(void *ctx, float *x, const float *y, size_t n)
{
    const fr_comm_over *o = ctx;
    return n > 0 ? o->ops->add(o->dev, x, y, 1, (int)n) : FR_OK;
}

static fr_status sum_whole(nccl_comm *m, const fr_comm_exchange *e)
{
    FR_TRY(enqueue(m, launch_all_gather, e));
    return fr_comm_add_in_rank_order(e, e->x, e->n, add, &m->over);
}

static fr_status sum_pieces(nccl_comm *m, const fr_comm_exchange *e)
{
    FR_TRY(enqueue(m, launch_scatter, e));
    FR_TRY(fr_comm_add_in_rank_order(e, e->x + fr_comm_piece_at(e, e->rank), fr_comm_piece_len(e, e->rank), add,
                                     &m->over));
    return enqueue(m, launch_collect, e);
}

static fr_status nccl_all_reduce_sum(fr_comm *c, float *x, size_t n)
{
    nccl_comm *m = of(c);
    const bool in_pieces = n > SMALL_SUM && c->size > 2;
    FR_TRY(before(&m->over));
    FR_TRY(fr_comm_over_check(&m->over, "all_reduce_sum", n, sizeof *x));
    if (n == 0)
        return FR_OK;
    m->n_calls++;
    fr_comm_exchange e = fr_comm_exchange_begin(c, x, n, in_pieces);
    if (!m->in_rank_order)
        return enqueue(m, launch_all_reduce, &e);
    FR_TRY(make_room(m, (size_t)e.size * e.stride));
    e.parts = m->parts;
    e.sums = x;
    return in_pieces ? sum_pieces(m, &e) : sum_whole(m, &e);
}

/* ---- gathers and broadcasts */

/* What a launch needs; copied into recorded passes. */
typedef struct move_args {
    nccl_comm *m;
    const void *from;
    void *to;
    size_t bytes;
} move_args;

static void launch_gather(void *stream, const void *args)
{
    const move_args *a = args;
    if (may_launch(a->m))
        note(a->m, ncclAllGather(a->from, a->to, a->bytes, ncclUint8, a->m->nccl, stream));
}

static void launch_broadcast(void *stream, const void *args)
{
    const move_args *a = args;
    if (may_launch(a->m))
        note(a->m, ncclBroadcast(a->from, a->to, a->bytes, ncclUint8, 0, a->m->nccl, stream));
}

static fr_status move(nccl_comm *m, void (*launch)(void *, const void *), const void *from, void *to, size_t bytes)
{
    const move_args args = {.m = m, .from = from, .to = to, .bytes = bytes};
    m->n_calls++;
    return m->over.ops->enqueue(m->over.dev, launch, &args, sizeof args);
}

/* The others wait as the leader does: all devices start their work at the same places. */
static fr_status nccl_gather(fr_comm *c, const void *mine, size_t bytes, void *out)
{
    nccl_comm *m = of(c);
    const fr_comm_over *o = &m->over;
    FR_TRY(before(&m->over));
    FR_TRY(fr_comm_over_check(o, "gather", bytes, 1));
    if (bytes == 0)
        return FR_OK;
    const size_t all = (size_t)c->size * bytes;
    FR_TRY(make_room(m, (all + sizeof *m->parts - 1) / sizeof *m->parts));
    FR_TRY(move(m, launch_gather, mine, m->parts, bytes));
    FR_TRY(c->rank == 0 ? o->ops->download(o->dev, out, m->parts, all) : o->ops->sync(o->dev));
    return before(&m->over);
}

static fr_status nccl_broadcast(fr_comm *c, void *data, size_t bytes)
{
    nccl_comm *m = of(c);
    FR_TRY(before(&m->over));
    FR_TRY(fr_comm_over_check(&m->over, "broadcast", bytes, 1));
    return bytes > 0 ? move(m, launch_broadcast, data, data, bytes) : FR_OK;
}

/* ---- opening and closing */

static void call_abort(void *nccl)
{
    ncclCommAbort(nccl);
}

/* The device has forgotten what was recorded. */
static void leave(nccl_comm *m)
{
    const bool in_good_order = m->nccl && m->connected && !m->cause[0] &&
                               settle(m, ncclCommFinalize(m->nccl)) == ncclSuccess;
    if (in_good_order)
        ncclCommDestroy(m->nccl);
    else if (m->nccl && !fr_bounded_call(call_abort, m->nccl, ABORT_MS))
        fr_log(FR_LOG_WARN, "rank %d: NCCL has not left this rank's GPU in %d ms", m->over.base.rank, ABORT_MS);
    m->nccl = NULL;
}

static void nccl_close(fr_comm **c)
{
    if (!c || !*c)
        return;
    nccl_comm *m = of(*c);
    m->over.ops->set_peers(m->over.dev, NULL);
    leave(m);
    m->over.ops->sync(m->over.dev); /* what is pending may be launches of this, which now do nothing */
    m->over.ops->mem_free(m->over.dev, m->parts);
    m->over.ops->mem_free(m->over.dev, m->over.tried);
    free(m->compared);
    free(m);
    *c = NULL;
}

static const fr_comm_ops nccl_ops = {
    .name = "nccl",
    .all_reduce_sum = nccl_all_reduce_sum,
    .gather = nccl_gather,
    .all_gather = fr_comm_over_all_gather,
    .broadcast = nccl_broadcast,
    .agree = fr_comm_over_agree,
    .command_send = fr_comm_over_command_send,
    .command_wait = fr_comm_over_command_wait,
    .give_up = nccl_give_up,
    .look = fr_comm_over_look,
    .close = nccl_close,
};

/* The same id on all ranks; it names the group to NCCL and says where rank 0 listens. */
static fr_status share_id(const nccl_comm *m, ncclUniqueId *id)
{
    fr_comm *host = m->over.host;
    fr_status st = FR_OK;
    if (host->rank == 0)
        st = check_nccl(m, ncclGetUniqueId(id), "ncclGetUniqueId");
    FR_TRY(host->ops->agree(host, st));
    return host->ops->broadcast(host, id, sizeof *id);
}

/* A rank that fails lets the others wait in vain: so they agree on real errors first, and only then on the time-outs
 * that came of them. */
static fr_status connect_ranks(nccl_comm *m)
{
    fr_comm *host = m->over.host;
    ncclUniqueId id = {0};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    FR_TRY(host->ops->agree(host, fr_nccl_open()));
    FR_TRY(share_id(m, &id));
    const ncclResult_t rc =
        settle(m, ncclCommInitRankConfig(&m->nccl, host->size, id, host->rank, &config));
    const fr_status failed = rc == ncclInProgress ? FR_OK : check_nccl(m, rc, "connecting the ranks");
    FR_TRY(host->ops->agree(host, failed));
    const fr_status late = rc != ncclInProgress ? FR_OK
                                                : fr_fail(FR_EPEER, "rank %d: NCCL did not connect %d ranks in %d ms",
                                                          host->rank, host->size, m->timeout_ms);
    return host->ops->agree(host, late);
}

/* NCCL opens its channels with the first message of a kind; that must not happen while a pass is recorded, nor take
 * memory that the model was given. And a rank that cannot hear the others is known before the model is loaded. */
static fr_status prove(nccl_comm *m, const fr_comm_device_options *o)
{
    const size_t sums[] = {1, SMALL_SUM + 1, o->max_sum < SMALL_SUM ? o->max_sum : SMALL_SUM, o->max_sum},
                 gathers[] = {1, o->max_gather}, broadcasts[] = {1, o->max_sum * sizeof(float)};
    const fr_comm_trials trials = {.sums = sums, .gathers = gathers, .broadcasts = broadcasts, .n_sums = 4,
                                   .n_gathers = 2, .n_broadcasts = 2};
    const fr_status st = fr_comm_over_prove(&m->over, &trials);
    m->n_calls = 0; /* none is under way: the model may be loaded without haste */
    return st;
}

fr_status fr_comm_nccl_present(void)
{
    return fr_nccl_open();
}

static fr_status new_comm(fr_comm *host, const fr_ops *ops, fr_device *dev, const fr_comm_device_options *o,
                          nccl_comm **out)
{
    nccl_comm *m = calloc(1, sizeof *m);
    if (!m)
        return fr_no_memory();
    m->compared = calloc((size_t)host->size, sizeof *m->compared);
    if (!m->compared) {
        free(m);
        return fr_no_memory();
    }
    m->peers = (fr_device_peers){.ctx = m, .check = look, .compare = compare};
    fr_comm_over_init(&m->over, &nccl_ops, host, ops, dev);
    m->over.before = before;
    m->over.base.on_stream = true;
    m->in_rank_order = o->batch_invariant;
    m->timeout_ms = o->connect_ms > 0 ? o->connect_ms : FR_COMM_TIMEOUT_MS;
    *out = m;
    return FR_OK;
}

fr_status fr_comm_nccl_open(fr_comm *host, const fr_ops *ops, fr_device *dev, const fr_comm_device_options *o,
                            fr_comm **out)
{
    nccl_comm *m = NULL;
    const fr_status made = new_comm(host, ops, dev, o, &m);
    *out = m ? &m->over.base : NULL;
    FR_TRY(host->ops->agree(host, made));
    FR_TRY(connect_ranks(m));
    m->connected = true;
    ops->set_peers(dev, &m->peers);
    FR_TRY(prove(m, o));
    m->timeout_ms = o->timeout_ms > 0 ? o->timeout_ms : FR_COMM_TIMEOUT_MS;
    return FR_OK;
}
