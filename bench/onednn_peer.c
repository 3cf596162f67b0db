/* onednn_peer: one transposed convolution of oneDNN behind four functions, for
 * bench/peers.py.  Needs oneDNN 3.x.
 *
 * A variant says who chooses the layouts of the two activations:
 *     "direct"         both plain NCDHW; the primitive works on them as they are
 *     "reorder"        both plain; the primitive chooses, reorders are part of a run
 *     "best"           the primitive chooses; the caller's data are in those layouts
 *     "channels_last"  both NDHWC
 * Weights are always in the primitive's own layout ("prepacked"); the weight
 * gradient is handed back plain where the activations are ("direct", "reorder").
 * SPDX-License-Identifier: MIT */
#include <oneapi/dnnl/dnnl.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FORWARD,
    BACKWARD_INPUT,
    BACKWARD_WEIGHT
};
enum {
    SRC,
    WEIGHTS,
    BIAS,
    DST,
    TENSORS
};

typedef struct layer_arguments {
    long long batch, in_channels, out_channels, groups;
    long long size[3], kernel[3], stride[3], padding[3], output_padding[3], dilation[3], out[3];
    int bias, bfloat16;
} layer_arguments;

typedef struct tensor {
    dnnl_memory_desc_t plain, chosen;
    dnnl_memory_t user, own;  /* what the caller sees; what the primitive works on */
    dnnl_primitive_t reorder; /* between them, on each run; NULL if they are one */
    int written;
} tensor;

typedef struct peer {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_t primitive;
    dnnl_primitive_desc_t desc;
    tensor tensor[TENSORS];
    int bias;
    char implementation[128];
} peer;

static char failure[256];

static int failed(dnnl_status_t status, const char *call) {
    if (status != dnnl_success)
        snprintf(failure, sizeof failure, "%.200s: status %d", call, (int)status);
    return status != dnnl_success;
}
#define TRY(call)                                                                                  \
    do {                                                                                           \
        if (failed(call, #call)) return 1;                                                         \
    } while (0)

const char *peer_failure(void) {
    return failure;
}

const char *peer_version(void) {
    static char text[64];
    const dnnl_version_t *v = dnnl_version();
    const char *runtime = v->cpu_runtime == DNNL_RUNTIME_OMP    ? "OpenMP"
                          : v->cpu_runtime == DNNL_RUNTIME_TBB  ? "TBB"
                          : v->cpu_runtime == DNNL_RUNTIME_SYCL ? "SYCL"
                                                                : "other runtime";
    snprintf(text, sizeof text, "%d.%d.%d (%s)", v->major, v->minor, v->patch, runtime);
    return text;
}

const char *peer_implementation(const peer *p) {
    return p->implementation;
}

/* ---- Descriptions ------------------------------------------------------------------- */

static int describe(const layer_arguments *l, const char *variant,
                    dnnl_memory_desc_t plain[TENSORS], dnnl_memory_desc_t wanted[TENSORS]) {
    const dnnl_dims_t src = {l->batch, l->in_channels, l->size[0], l->size[1], l->size[2]};
    const dnnl_dims_t dst = {l->batch, l->out_channels, l->out[0], l->out[1], l->out[2]};
    const long long *k = l->kernel;
    long long g = l->groups, ic = l->in_channels / g, oc = l->out_channels / g;
    long long taps = k[0] * k[1] * k[2];
    const dnnl_dims_t weights = {g, oc, ic, k[0], k[1], k[2]};
    /* PyTorch's memory is [g*ic][oc][taps]; oneDNN's axes are g, oc, ic, taps. */
    const dnnl_dims_t strides = {ic * oc * taps, taps, oc * taps, k[1] * k[2], k[2], 1};
    const dnnl_dims_t bias = {l->out_channels};
    int grouped = g > 1;
    const dnnl_data_type_t type = l->bfloat16 ? dnnl_bf16 : dnnl_f32;
    dnnl_format_tag_t tag = !strcmp(variant, "direct")          ? dnnl_ncdhw
                            : !strcmp(variant, "channels_last") ? dnnl_ndhwc
                                                                : dnnl_format_tag_any;
    TRY(dnnl_memory_desc_create_with_tag(&plain[SRC], 5, src, type, dnnl_ncdhw));
    TRY(dnnl_memory_desc_create_with_tag(&plain[DST], 5, dst, type, dnnl_ncdhw));
    TRY(dnnl_memory_desc_create_with_strides(&plain[WEIGHTS], 5 + grouped,
                                             grouped ? weights : weights + 1, type,
                                             grouped ? strides : strides + 1));
    TRY(dnnl_memory_desc_create_with_tag(&plain[BIAS], 1, bias, type, dnnl_a));
    TRY(dnnl_memory_desc_create_with_tag(&wanted[SRC], 5, src, type, tag));
    TRY(dnnl_memory_desc_create_with_tag(&wanted[DST], 5, dst, type, tag));
    TRY(dnnl_memory_desc_create_with_tag(
        &wanted[WEIGHTS], 5 + grouped, grouped ? weights : weights + 1, type, dnnl_format_tag_any));
    wanted[BIAS] = plain[BIAS];
    return 0;
}

static int create_desc(peer *p, const layer_arguments *l, int direction,
                       dnnl_memory_desc_t wanted[TENSORS]) {
    dnnl_dims_t stride, dilation, before, after;
    dnnl_memory_desc_t bias = l->bias ? wanted[BIAS] : NULL;
    dnnl_primitive_desc_t hint = NULL;
    for (int a = 0; a < 3; a++) {
        stride[a] = l->stride[a];
        dilation[a] = l->dilation[a] - 1;
        before[a] = l->padding[a];
        after[a] = l->padding[a] - l->output_padding[a];
    }
    TRY(dnnl_deconvolution_forward_primitive_desc_create(
        &hint, p->engine, direction == FORWARD ? dnnl_forward_inference : dnnl_forward_training,
        dnnl_deconvolution_direct, wanted[SRC], wanted[WEIGHTS], bias, wanted[DST], stride,
        dilation, before, after, NULL));
    if (direction == FORWARD) {
        p->desc = hint;
        return 0;
    }
    if (direction == BACKWARD_INPUT)
        TRY(dnnl_deconvolution_backward_data_primitive_desc_create(
            &p->desc, p->engine, dnnl_deconvolution_direct, wanted[SRC], wanted[WEIGHTS],
            wanted[DST], stride, dilation, before, after, hint, NULL));
    else
        TRY(dnnl_deconvolution_backward_weights_primitive_desc_create(
            &p->desc, p->engine, dnnl_deconvolution_direct, wanted[SRC], wanted[WEIGHTS], bias,
            wanted[DST], stride, dilation, before, after, hint, NULL));
    dnnl_primitive_desc_destroy(hint);
    return 0;
}

/* ---- Memory --------------------------------------------------------------------------- */

static int execute_reorder(peer *p, tensor *t, int backwards) {
    dnnl_exec_arg_t arguments[2] = {{DNNL_ARG_FROM, backwards ? t->own : t->user},
                                    {DNNL_ARG_TO, backwards ? t->user : t->own}};
    TRY(dnnl_primitive_execute(t->reorder, p->stream, 2, arguments));
    return 0;
}

static int make_reorder(peer *p, tensor *t, int backwards) {
    dnnl_primitive_desc_t desc;
    TRY(dnnl_reorder_primitive_desc_create(&desc, backwards ? t->chosen : t->plain, p->engine,
                                           backwards ? t->plain : t->chosen, p->engine, NULL));
    TRY(dnnl_primitive_create(&t->reorder, desc));
    dnnl_primitive_desc_destroy(desc);
    return 0;
}

/* 'timed': the caller's data stay plain, so that a run has to reorder them. */
static int make_tensor(peer *p, tensor *t, void *data, int written, int timed) {
    t->written = written;
    TRY(dnnl_memory_create(&t->user, t->plain, p->engine, data));
    if (dnnl_memory_desc_equal(t->plain, t->chosen)) {
        t->own = t->user;
        return 0;
    }
    TRY(dnnl_memory_create(&t->own, t->chosen, p->engine, DNNL_MEMORY_ALLOCATE));
    if (make_reorder(p, t, written)) return 1;
    if (!written && !timed) {
        if (execute_reorder(p, t, 0)) return 1;
        TRY(dnnl_stream_wait(p->stream));
    }
    if (!timed) {
        dnnl_primitive_destroy(t->reorder);
        t->reorder = NULL;
    }
    return 0;
}

/* ---- The four functions ---------------------------------------------------------------- */

int peer_create(peer **out, const layer_arguments *l, int direction, const char *variant, void *src,
                void *weights, void *bias, void *dst) {
    static const dnnl_query_t queries[3][TENSORS] = {
        {dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_undef, dnnl_query_dst_md},
        {dnnl_query_diff_src_md, dnnl_query_weights_md, dnnl_query_undef, dnnl_query_diff_dst_md},
        {dnnl_query_src_md, dnnl_query_diff_weights_md, dnnl_query_undef, dnnl_query_diff_dst_md}};
    static const int written[3] = {DST, SRC, WEIGHTS};
    void *data[TENSORS] = {src, weights, bias, dst};
    int plain_activations = !strcmp(variant, "direct") || !strcmp(variant, "reorder");
    dnnl_memory_desc_t plain[TENSORS], wanted[TENSORS];
    const char *name;
    peer *p = calloc(1, sizeof *p);
    if (!p) return 1;
    *out = p;
    p->bias = l->bias;
    TRY(dnnl_engine_create(&p->engine, dnnl_cpu, 0));
    TRY(dnnl_stream_create(&p->stream, p->engine, dnnl_stream_in_order));
    if (describe(l, variant, plain, wanted) || create_desc(p, l, direction, wanted)) return 1;
    TRY(dnnl_primitive_desc_query(p->desc, dnnl_query_impl_info_str, 0, (void *)&name));
    snprintf(p->implementation, sizeof p->implementation, "%s", name);
    TRY(dnnl_primitive_create(&p->primitive, p->desc));
    for (int i = 0; i < TENSORS; i++) {
        tensor *t = &p->tensor[i];
        if (i == BIAS && !l->bias) continue;
        t->plain = plain[i];
        t->chosen = queries[direction][i] == dnnl_query_undef
                        ? plain[i]
                        : (dnnl_memory_desc_t)dnnl_primitive_desc_query_md(
                              p->desc, queries[direction][i], 0);
        int is_written = i == written[direction] || (i == BIAS && direction == BACKWARD_WEIGHT);
        int timed = plain_activations && (i != WEIGHTS || direction == BACKWARD_WEIGHT);
        if (make_tensor(p, t, data[i], is_written, timed)) return 1;
    }
    return 0;
}

int peer_run(peer *p, int direction) {
    static const int names[3][TENSORS] = {
        {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST},
        {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, 0, DNNL_ARG_DIFF_DST},
        {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS, DNNL_ARG_DIFF_DST}};
    dnnl_exec_arg_t arguments[TENSORS];
    int count = 0;
    for (int i = 0; i < TENSORS; i++) {
        tensor *t = &p->tensor[i];
        if (t->reorder && !t->written && execute_reorder(p, t, 0)) return 1;
        if (t->own && names[direction][i])
            arguments[count++] = (dnnl_exec_arg_t){names[direction][i], t->own};
    }
    TRY(dnnl_primitive_execute(p->primitive, p->stream, count, arguments));
    for (int i = 0; i < TENSORS; i++) {
        tensor *t = &p->tensor[i];
        if (t->reorder && t->written && execute_reorder(p, t, 1)) return 1;
    }
    TRY(dnnl_stream_wait(p->stream));
    return 0;
}

void peer_destroy(peer *p) {
    if (!p) return;
    for (int i = 0; i < TENSORS; i++) {
        tensor *t = &p->tensor[i];
        if (t->own && t->own != t->user) dnnl_memory_destroy(t->own);
        if (t->user) dnnl_memory_destroy(t->user);
        if (t->reorder) dnnl_primitive_destroy(t->reorder);
        if (t->plain) dnnl_memory_desc_destroy(t->plain);
    }
    if (p->primitive) dnnl_primitive_destroy(p->primitive);
    if (p->desc) dnnl_primitive_desc_destroy(p->desc);
    if (p->stream) dnnl_stream_destroy(p->stream);
    if (p->engine) dnnl_engine_destroy(p->engine);
    free(p);
}
