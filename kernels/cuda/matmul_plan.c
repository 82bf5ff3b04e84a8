/* matmul_plan.c: see matmul_plan.h. */
#include "matmul_plan.h"

#include <string.h>

#include "check.h"
#include "cublas_lt.h"
#include "matmul.h"

_Static_assert(sizeof(fr_cuda_matmul_args) <= FR_CUDA_ARGS, "arguments of a launch");
_Static_assert(sizeof(fr_cublas_args) <= FR_CUDA_ARGS, "arguments of a launch");

/* What is made of x. In this order they are made, and lie in the scratch. */
typedef enum {
    SCALES,     /* F16: a power of two a row */
    TERMS_BF16, /* for the wide kernels */
    TERMS_F16,
    ROUNDED_BF16, /* for cuBLASLt */
    ROUNDED_F16,
    ACTS_CODES, /* 8 bits, a scale for 32 columns */
    ACTS_SUPER, /* 8 bits, a scale for 256 columns */
    FORMS
} x_form;

static const fr_cuda_launch makers[FORMS] = {
    [SCALES] = fr_cuda_matmul_scale_rows,         [TERMS_BF16] = fr_cuda_matmul_split_bf16,
    [TERMS_F16] = fr_cuda_matmul_split_f16,       [ROUNDED_BF16] = fr_cuda_matmul_round_bf16,
    [ROUNDED_F16] = fr_cuda_matmul_round_f16,     [ACTS_CODES] = fr_cuda_matmul_quantise,
    [ACTS_SUPER] = fr_cuda_matmul_quantise_super,
};

/* [0]: up to FR_CUDA_NARROW tokens, [1]: more. */
static const fr_cuda_launch kernels[FR_CUDA_KINDS][2] = {
    [FR_CUDA_F32] = {fr_cuda_matmul_f32, fr_cuda_matmul_f32},
    [FR_CUDA_BF16] = {fr_cuda_matmul_bf16, fr_cuda_matmul_wide_bf16},
    [FR_CUDA_F16] = {fr_cuda_matmul_f16, fr_cuda_matmul_wide_f16},
    [FR_CUDA_CODES] = {fr_cuda_matmul_codes, fr_cuda_matmul_wide_codes},
    [FR_CUDA_Q4_K] = {fr_cuda_matmul_q4_k, fr_cuda_matmul_wide_q4_k},
    [FR_CUDA_Q5_K] = {fr_cuda_matmul_q5_k, fr_cuda_matmul_wide_q5_k},
    [FR_CUDA_Q6_K] = {fr_cuda_matmul_q6_k, fr_cuda_matmul_wide_q6_k},
};

/* What a request needs, where each form lies in the scratch, and which products cuBLASLt takes. Sets are of bits. A
 * pass has hundreds of requests, most of one kind and one form or none: what is not in a set is not looked at, nor
 * set. */
typedef struct plan {
    bool wide;
    unsigned forms, kinds; /* kinds: of the products that own kernels take */
    unsigned by_cublas;    /* products */
    size_t at[FORMS], bytes;
    int32_t strides[FORMS];
    uint64_t algorithms[FR_CUDA_PRODUCTS_MAX][8];
} plan;

static fr_cublas_shape shape_of(const fr_weight *w, int n)
{
    return (fr_cublas_shape){w->rows, w->stride, n, w->kind == FR_CUDA_BF16};
}

/* FORMS: x as it is. */
static x_form form_for(fr_cuda_kind kind, bool wide, bool by_cublas)
{
    switch (kind) {
    case FR_CUDA_BF16:
        return by_cublas ? ROUNDED_BF16 : wide ? TERMS_BF16 : FORMS;
    case FR_CUDA_F16:
        return by_cublas ? ROUNDED_F16 : wide ? TERMS_F16 : FORMS;
    case FR_CUDA_CODES:
        return ACTS_CODES;
    case FR_CUDA_Q4_K:
    case FR_CUDA_Q5_K:
    case FR_CUDA_Q6_K:
        return ACTS_SUPER;
    case FR_CUDA_F32:
    case FR_CUDA_KINDS:
        break;
    }
    return FORMS;
}

static bool goes_to_cublas(const fr_cuda_matmul_request *r, int i, plan *p)
{
    const fr_weight *w = r->products[i].w;
    if (!r->cublas || r->n < FR_CUBLAS_TOKENS || (w->kind != FR_CUDA_BF16 && w->kind != FR_CUDA_F16))
        return false;
    const fr_cublas_shape shape = shape_of(w, r->n);
    return fr_cublas_choose(r->cublas, &shape, p->algorithms[i]);
}

static void find_needs(const fr_cuda_matmul_request *r, plan *p)
{
    for (int i = 0; i < r->n_products; i++) {
        const fr_weight *w = r->products[i].w;
        const bool by_cublas = goes_to_cublas(r, i, p);
        const x_form form = form_for(w->kind, p->wide, by_cublas);
        if (w->kind == FR_CUDA_F16)
            p->forms |= 1u << SCALES;
        if (by_cublas)
            p->by_cublas |= 1u << i;
        else
            p->kinds |= 1u << w->kind;
        if (form == FORMS)
            continue;
        p->forms |= 1u << form;
        p->strides[form] = w->stride;
    }
}

static size_t form_bytes(x_form form, int32_t stride, int n)
{
    const size_t tokens = (size_t)n,
                 padded =
                     (tokens + FR_CUDA_WIDE_TOKENS - 1) / FR_CUDA_WIDE_TOKENS * FR_CUDA_WIDE_TOKENS,
                 tiles = (tokens + FR_CUDA_TILE_TOKENS - 1) / FR_CUDA_TILE_TOKENS,
                 cols = (size_t)stride;
    switch (form) {
    case SCALES:
        return tokens * 2 * sizeof(float);
    case TERMS_BF16:
        return padded * cols * 2 * FR_CUDA_BF16_TERMS;
    case TERMS_F16:
        return padded * cols * 2 * FR_CUDA_F16_TERMS;
    case ROUNDED_BF16:
    case ROUNDED_F16:
        return tokens * cols * 2;
    case ACTS_CODES:
        return FR_CUDA_ACTS_CODES(tiles, cols) +
               tiles * (cols / 32) * FR_CUDA_TILE_TOKENS * 2 * sizeof(float);
    case ACTS_SUPER:
        return FR_CUDA_ACTS_CODES(tiles, cols) + FR_CUDA_ACTS_DIGITS(tiles, cols) +
               tiles * (cols / FR_CUDA_CHUNK) * FR_CUDA_TILE_TOKENS * sizeof(float);
    case FORMS:
        break;
    }
    return 0;
}

static size_t form_room(x_form form, int32_t stride, int n)
{
    return (form_bytes(form, stride, n) + 255) / 256 * 256;
}

static void make_plan(const fr_cuda_matmul_request *r, plan *p)
{
    p->wide = r->n > FR_CUDA_NARROW;
    p->forms = p->kinds = p->by_cublas = 0;
    p->bytes = 0;
    find_needs(r, p);
    for (int f = 0; p->forms >> f; f++) {
        if (!(p->forms >> f & 1))
            continue;
        p->at[f] = p->bytes;
        p->bytes += form_room((x_form)f, f == SCALES ? 0 : p->strides[f], r->n);
    }
}

/* Fewer tokens take no more. Of one request cuBLASLt may take some products and own kernels the others. */
fr_status fr_cuda_matmul_most_scratch(const fr_matrix *matrices, int n_matrices, int n, bool cublas, size_t *bytes_out)
{
    size_t most[FORMS + 1] = {0}, bytes = 0;
    for (int i = 0; i < n_matrices; i++) {
        fr_weight w;
        FR_TRY(fr_cuda_weight_describe(&matrices[i], &w));
        const x_form forms[] = {w.kind == FR_CUDA_F16 ? SCALES : FORMS, form_for(w.kind, n > FR_CUDA_NARROW, false),
                                form_for(w.kind, n > FR_CUDA_NARROW, cublas)};
        for (int k = 0; k < 3; k++) {
            const size_t room = form_room(forms[k], w.stride, n);
            most[forms[k]] = room > most[forms[k]] ? room : most[forms[k]];
        }
    }
    for (int f = 0; f < FORMS; f++)
        bytes += most[f];
    *bytes_out = bytes;
    return FR_OK;
}

size_t fr_cuda_matmul_scratch_bytes(const fr_cuda_matmul_request *r)
{
    plan p;
    make_plan(r, &p);
    return p.bytes;
}

static void push(fr_cuda_command *out, fr_cuda_launch launch, const void *args, size_t bytes)
{
    out->launch = launch;
    out->bytes = bytes;
    memcpy(out->args, args, bytes);
}

static void *form_at(const fr_cuda_matmul_request *r, const plan *p, x_form form)
{
    return p->forms >> form & 1 ? (char *)r->scratch + p->at[form] : NULL;
}

static const float *scales_of(const fr_cuda_matmul_request *r, const plan *p, fr_cuda_kind kind)
{
    return kind == FR_CUDA_F16 ? form_at(r, p, SCALES) : NULL;
}

static int push_preparations(const fr_cuda_matmul_request *r, const plan *p, fr_cuda_command *out)
{
    int n = 0;
    for (int f = 0; p->forms >> f; f++) {
        if (!(p->forms >> f & 1))
            continue;
        fr_cuda_prepare_args args = {.x = r->x,
                                     .out = form_at(r, p, (x_form)f),
                                     .n = r->n,
                                     .cols = r->products[0].w->cols,
                                     .stride = f == SCALES ? 0 : p->strides[f]};
        if (f == TERMS_F16 || f == ROUNDED_F16)
            args.scales = form_at(r, p, SCALES);
        push(&out[n++], makers[f], &args, sizeof args);
    }
    return n;
}

static int push_cublas(const fr_cuda_matmul_request *r, const plan *p, int product,
                       fr_cuda_command *out)
{
    const fr_weight *w = r->products[product].w;
    const bool bf16 = w->kind == FR_CUDA_BF16;
    fr_cublas_args args = {.lt = r->cublas,
                           .w = w->data,
                           .y = r->products[product].y,
                           .x = form_at(r, p, bf16 ? ROUNDED_BF16 : ROUNDED_F16),
                           .shape = shape_of(w, r->n)};
    memcpy(args.algorithm, p->algorithms[product], sizeof args.algorithm);
    push(&out[0], fr_cublas_matmul, &args, sizeof args);
    if (bf16)
        return 1;
    fr_cuda_prepare_args unscale = {
        .out = args.y, .scales = form_at(r, p, SCALES), .n = r->n, .cols = w->rows};
    push(&out[1], fr_cuda_matmul_unscale, &unscale, sizeof unscale);
    return 2;
}

static const void *acts_of(const fr_cuda_matmul_request *r, const plan *p, fr_cuda_kind kind)
{
    if (kind == FR_CUDA_F32)
        return NULL;
    if (kind == FR_CUDA_BF16 || kind == FR_CUDA_F16)
        return form_at(r, p, kind == FR_CUDA_BF16 ? TERMS_BF16 : TERMS_F16);
    return form_at(r, p, kind == FR_CUDA_CODES ? ACTS_CODES : ACTS_SUPER);
}

static fr_cuda_matrix matrix_of(const fr_product *product)
{
    const fr_dtype t = product->w->dtype;
    fr_cuda_matrix m = {.data = product->w->data, .y = product->y, .rows = product->w->rows};
    m.has_shifts = t == FR_Q4_1 || t == FR_Q5_1;
    m.offset = t == FR_Q4_0 ? -8 : t == FR_Q5_0 ? -16 : 0;
    return m;
}

/* The products of one kind that own kernels take, by groups. */
static int push_kind(const fr_cuda_matmul_request *r, const plan *p, fr_cuda_kind kind,
                     fr_cuda_command *out)
{
    int n = 0;
    fr_cuda_matmul_args args = {
        .x = r->x, .acts = acts_of(r, p, kind), .scales = scales_of(r, p, kind), .n = r->n};
    for (int i = 0; i < r->n_products; i++) {
        const fr_weight *w = r->products[i].w;
        if (w->kind != kind || p->by_cublas >> i & 1)
            continue;
        args.cols = w->cols;
        args.stride = w->stride;
        args.matrices[args.n_matrices++] = matrix_of(&r->products[i]);
        if (args.n_matrices == FR_CUDA_GROUP) {
            push(&out[n++], kernels[kind][p->wide], &args, sizeof args);
            args.n_matrices = 0;
        }
    }
    if (args.n_matrices > 0)
        push(&out[n++], kernels[kind][p->wide], &args, sizeof args);
    return n;
}

static int least(int a, int b)
{
    return a < b ? a : b;
}

bool fr_cuda_matmul_looks_ahead(fr_cuda_launch launch)
{
    for (int kind = FR_CUDA_BF16; kind < FR_CUDA_KINDS; kind++)
        if (launch == kernels[kind][0])
            return true;
    return launch == fr_cuda_matmul_gated_bf16 || launch == fr_cuda_matmul_gated_f16;
}

void fr_cuda_matmul_ahead(const fr_product *products, int n_products, int n, fr_cuda_ahead *out)
{
    *out = (fr_cuda_ahead){0};
    const fr_weight *first = products[0].w;
    /* Gate and up, which a block takes side by side (gated); others come one after the other. */
    const bool gated = n_products == 2 && products[1].w->rows == first->rows && fr_cuda_weight_line_rows(first) == 1;
    const int per_line = fr_cuda_weight_line_rows(first), n_lines = FR_CUDA_FIRST_ROWS / per_line;
    int left = n_lines;
    if (n > FR_CUDA_NARROW || n_products > FR_CUDA_GROUP)
        return;
    for (int i = 0; i < n_products && left > 0; i++) {
        const fr_weight *w = products[i].w;
        const int lines = (w->rows + per_line - 1) / per_line;
        if (w->kind != first->kind || w->dtype != first->dtype)
            break;
        out->data[i] = w->data;
        out->lines[i] = least(lines, gated ? n_lines / 2 : left);
        left -= out->lines[i];
    }
    const size_t line_bytes = fr_cuda_weight_offset(first, per_line), share = FR_CUDA_AHEAD / (size_t)(n_lines - left);
    out->line_bytes = (int32_t)line_bytes;
    out->width = (int32_t)(line_bytes < share ? line_bytes : share / 128 * 128);
}

int fr_cuda_matmul_plan(const fr_cuda_matmul_request *r,
                        fr_cuda_command out[FR_CUDA_MATMUL_COMMANDS])
{
    plan p;
    make_plan(r, &p);
    int n = push_preparations(r, &p, out);
    for (int kind = 0; p.kinds >> kind; kind++)
        if (p.kinds >> kind & 1)
            n += push_kind(r, &p, (fr_cuda_kind)kind, out + n);
    for (int i = 0; p.by_cublas >> i; i++)
        if (p.by_cublas >> i & 1)
            n += push_cublas(r, &p, i, out + n);
    return n;
}
