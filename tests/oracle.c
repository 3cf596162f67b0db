/* oracle: the layer in its scatter form, o = i*stride - padding + k*dilation.
 * SPDX-License-Identifier: MIT
 *
 * The library gathers, phase by phase; this walks over the products one by one
 * and asks where each of them goes, so that the two can hardly be wrong alike.
 * The three directions are three readings of one and the same set of products
 * x*w -> y: whichever tensor is unknown collects. */
#include "oracle.h"

#include <stdlib.h>

int64_t oracle_output_size(const convt3d_problem *p, int axis) {
    return (p->input_size[axis] - 1) * p->stride[axis] - p->padding_before[axis] -
           p->padding_after[axis] + p->dilation[axis] * (p->kernel_size[axis] - 1) +
           p->output_padding[axis] + 1;
}

int64_t oracle_fold(const convt3d_problem *p, int axis, int64_t o) {
    int64_t out = oracle_output_size(p, axis);
    if (o >= 0 && o < out) return o;
    switch (p->padding_mode) {
    case CONVT3D_CIRCULAR:
        return o < 0 ? o + out : o - out;
    case CONVT3D_REFLECT:
        return o < 0 ? -o : 2 * (out - 1) - o;
    case CONVT3D_REPLICATE:
        return o < 0 ? 0 : out - 1;
    default:
        return -1;
    }
}

int oracle_shape(const convt3d_problem *p, oracle_role role, int64_t shape[5]) {
    shape[0] = role == ORACLE_WEIGHT ? p->in_channels : p->batch;
    shape[1] = role == ORACLE_INPUT    ? p->in_channels
               : role == ORACLE_WEIGHT ? p->out_channels / p->groups
                                       : p->out_channels;
    for (int a = 0; a < 3; a++)
        shape[2 + a] = role == ORACLE_INPUT    ? p->input_size[a]
                       : role == ORACLE_WEIGHT ? p->kernel_size[a]
                                               : oracle_output_size(p, a);
    if (role != ORACLE_BIAS) return 5;
    shape[0] = p->out_channels;
    for (int a = 1; a < 5; a++) shape[a] = 1;
    return 1;
}

int64_t oracle_count(const convt3d_problem *p, oracle_role role) {
    int64_t shape[5], count = 1;
    oracle_shape(p, role, shape);
    for (int a = 0; a < 5; a++) count *= shape[a];
    return count;
}

int64_t oracle_products(const convt3d_problem *p) {
    int64_t count = oracle_count(p, ORACLE_INPUT) * (p->out_channels / p->groups);
    for (int a = 0; a < 3; a++) count *= p->kernel_size[a];
    return count;
}

/* One axis: where the product of input i and tap k lands, at [i*kernel + k]. */
static int64_t *landing_table(const convt3d_problem *p, int axis) {
    int64_t in = p->input_size[axis], kernel = p->kernel_size[axis];
    int64_t *table = malloc((size_t)(in * kernel) * sizeof *table);
    if (!table) abort();
    for (int64_t i = 0; i < in; i++)
        for (int64_t k = 0; k < kernel; k++)
            table[i * kernel + k] = oracle_fold(
                p, axis, i * p->stride[axis] - p->padding_before[axis] + k * p->dilation[axis]);
    return table;
}

/* The products of one axis: pairs (i, k) that land inside, in turn. */
typedef struct landing {
    const int64_t *table;
    int64_t in, kernel, out;
} landing;

/* One row of each volume: along the width, every input and every tap. */
static void one_row(const landing *axis, real *x, real *w, real *y, oracle_role collects) {
    const int64_t *lands = axis->table;
    for (int64_t i = 0; i < axis->in; i++)
        for (int64_t k = 0; k < axis->kernel; k++) {
            int64_t o = *lands++;
            if (o < 0) continue;
            if (collects == ORACLE_OUTPUT)
                y[o] += x[i] * w[k];
            else if (collects == ORACLE_INPUT)
                x[i] += y[o] * w[k];
            else
                w[k] += x[i] * y[o];
        }
}

/* Three dense volumes: one channel of x, one filter of w, one channel of y.
 * 'collects' says which of the three is the unknown. */
static void one_channel(const landing axis[3], real *x, real *w, real *y, oracle_role collects) {
    const landing *D = &axis[0], *H = &axis[1], *W = &axis[2];
    for (int64_t ik0 = 0; ik0 < D->in * D->kernel; ik0++)
        for (int64_t ik1 = 0; ik1 < H->in * H->kernel; ik1++) {
            if (D->table[ik0] < 0 || H->table[ik1] < 0) continue;
            one_row(W, x + (ik0 / D->kernel * H->in + ik1 / H->kernel) * W->in,
                    w + (ik0 % D->kernel * H->kernel + ik1 % H->kernel) * W->kernel,
                    y + (D->table[ik0] * H->out + H->table[ik1]) * W->out, collects);
        }
}

static void all_channels(const convt3d_problem *p, real *x, real *w, real *y,
                         oracle_role collects) {
    landing axis[3];
    int64_t *table[3], in = 1, kernel = 1, out = 1;
    for (int a = 0; a < 3; a++) {
        table[a] = landing_table(p, a);
        axis[a] =
            (landing){table[a], p->input_size[a], p->kernel_size[a], oracle_output_size(p, a)};
        in *= axis[a].in;
        kernel *= axis[a].kernel;
        out *= axis[a].out;
    }
    int64_t in_each = p->in_channels / p->groups, out_each = p->out_channels / p->groups;
    for (int64_t n = 0; n < p->batch; n++)
        for (int64_t ci = 0; ci < p->in_channels; ci++)
            for (int64_t j = 0; j < out_each; j++) {
                int64_t co = ci / in_each * out_each + j;
                one_channel(axis, x + (n * p->in_channels + ci) * in,
                            w + (ci * out_each + j) * kernel, y + (n * p->out_channels + co) * out,
                            collects);
            }
    for (int a = 0; a < 3; a++) free(table[a]);
}

static void clear(const convt3d_problem *p, oracle_role role, real *values) {
    for (int64_t i = 0, count = oracle_count(p, role); i < count; i++) values[i] = 0;
}

/* Only the collecting tensor is written, so the casts harm no one. */
void oracle_forward(const convt3d_problem *p, const real *x, const real *w, const real *bias,
                    real *y) {
    clear(p, ORACLE_OUTPUT, y);
    all_channels(p, (real *)x, (real *)w, y, ORACLE_OUTPUT);
    int64_t count = oracle_count(p, ORACLE_OUTPUT);
    int64_t volume = count ? count / (p->batch * p->out_channels) : 1;
    if (bias)
        for (int64_t i = 0; i < count; i++) y[i] += bias[i / volume % p->out_channels];
}

void oracle_backward_input(const convt3d_problem *p, const real *dy, const real *w, real *dx) {
    clear(p, ORACLE_INPUT, dx);
    all_channels(p, dx, (real *)w, (real *)dy, ORACLE_INPUT);
}

void oracle_backward_weight(const convt3d_problem *p, const real *x, const real *dy, real *dw) {
    clear(p, ORACLE_WEIGHT, dw);
    all_channels(p, (real *)x, dw, (real *)dy, ORACLE_WEIGHT);
}

void oracle_backward_bias(const convt3d_problem *p, const real *dy, real *db) {
    clear(p, ORACLE_BIAS, db);
    int64_t count = oracle_count(p, ORACLE_OUTPUT);
    int64_t volume = count ? count / (p->batch * p->out_channels) : 1;
    for (int64_t i = 0; i < count; i++) db[i / volume % p->out_channels] += dy[i];
}

void oracle_run(const convt3d_problem *p, convt3d_direction direction, real *const values[4]) {
    real *x = values[ORACLE_INPUT], *w = values[ORACLE_WEIGHT], *y = values[ORACLE_OUTPUT];
    real *bias = values[ORACLE_BIAS];
    if (direction == CONVT3D_FORWARD) {
        oracle_forward(p, x, w, bias, y);
    } else if (direction == CONVT3D_BACKWARD_INPUT) {
        oracle_backward_input(p, y, w, x);
    } else {
        oracle_backward_weight(p, x, y, w);
        if (bias) oracle_backward_bias(p, y, bias);
    }
}
