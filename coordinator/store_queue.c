/* store_queue.c: see store_queue.h. */
#include "store_queue.h"

#include <stdlib.h>
#include <string.h>

static void op_free(fr_store_op *op)
{
    fr_record_free(&op->record);
    free((int32_t *)op->step.ids);
    free((uint8_t *)op->step.text.data);
    free(op);
}

static fr_store_op *op_new(fr_store_op_kind kind, uint64_t job)
{
    fr_store_op *op = calloc(1, sizeof *op);
    if (op) {
        op->kind = kind;
        op->job = job;
    }
    return op;
}

static void append(fr_store_queue *q, fr_store_op *op)
{
    op->prev = q->last;
    if (q->last)
        q->last->next = op;
    else
        q->first = op;
    q->last = op;
    q->len++;
}

fr_status fr_store_queue_job(fr_store_queue *q, fr_store_op_kind kind, const fr_job_record *r)
{
    fr_store_op *op = op_new(kind, r->id);
    if (!op)
        return fr_no_memory();
    fr_job_record slim = *r;
    if (kind != FR_STORE_ADD_JOB)
        slim.spec = (fr_msg_job_spec){0}; /* the problem is long, and written once */
    fr_status st = fr_record_copy(&slim, &op->record);
    if (st != FR_OK) {
        op_free(op);
        return st;
    }
    append(q, op);
    return FR_OK;
}

static void *copy_bytes(const void *data, size_t n)
{
    void *copy = malloc(n ? n : 1);
    if (copy && n)
        memcpy(copy, data, n);
    return copy;
}

fr_status fr_store_queue_step(fr_store_queue *q, uint64_t job, const fr_store_step *step)
{
    fr_store_op *op = op_new(FR_STORE_ADD_STEP, job);
    if (!op)
        return fr_no_memory();
    op->step = *step;
    op->step.ids = copy_bytes(step->ids, step->n_ids * sizeof *step->ids);
    op->step.text.data = copy_bytes(step->text.data, step->text.len);
    if (!op->step.ids || !op->step.text.data) {
        op_free(op);
        return fr_no_memory();
    }
    append(q, op);
    return FR_OK;
}

fr_status fr_store_queue_trim(fr_store_queue *q, uint64_t job, uint32_t from_index)
{
    fr_store_op *op = op_new(FR_STORE_TRIM_STEPS, job);
    if (!op)
        return fr_no_memory();
    op->step.index = from_index;
    append(q, op);
    return FR_OK;
}

uint32_t fr_store_queue_trims(const fr_store_queue *q, uint64_t job)
{
    uint32_t from = UINT32_MAX;
    for (const fr_store_op *op = q->first; op; op = op->next)
        if (op->kind == FR_STORE_TRIM_STEPS && op->job == job && op->step.index < from)
            from = op->step.index;
    return from;
}

void fr_store_queue_clear(fr_store_queue *q)
{
    for (fr_store_op *op = q->first; op;) {
        fr_store_op *next = op->next;
        op_free(op);
        op = next;
    }
    *q = (fr_store_queue){0};
}
