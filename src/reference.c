/* reference: the definition, in C.  One output at a time, accumulated in long
 * double; never optimised.  It is oracle, fallback and documentation.
 *
 *     forward          y[n,co,o]   = bias[co] + sum x[n,ci,i] * w[ci,co,k]
 *     backward_input   dx[n,ci,i]  = sum dy[n,co,o] * w[ci,co,k]
 *     backward_weight  dw[ci,co,k] = sum x[n,ci,i] * dy[n,co,o]
 *                      db[co]      = sum dy[n,co,o]
 *
 * each over all (i, k) that meet in o on every axis, folds included.
 * SPDX-License-Identifier: MIT */
#include "activation.h"
#include "error.h"
#include "geometry.h"
#include "number.h"
#include "plan.h"

#include <string.h>

static char *at(const convt3d_view *v, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e) {
    return v->data + (a * v->stride[0] + b * v->stride[1] + c * v->stride[2] + d * v->stride[3] +
                      e * v->stride[4]) *
                         (int64_t)convt3d_dtype_size(v->dtype);
}

static long double load(const convt3d_view *v, const char *p) {
    return (long double)convt3d_number_get(v->dtype, p);
}

/* Rounded once, but for 16 bits: to float32 first, as sums are there. */
static void store(const convt3d_view *v, char *p, long double value, int accumulate) {
    if (accumulate) value += load(v, p);
    if (v->dtype == CONVT3D_FLOAT64)
        convt3d_number_put(v->dtype, p, (double)value);
    else
        convt3d_number_put(v->dtype, p, (double)(float)value);
}

static long double forward_one(const convt3d_call *c, int64_t n, int64_t co, const int64_t o[3]) {
    const convt3d_geometry *g = &c->plan->geometry;
    const convt3d_axis *axis = g->axis;
    int64_t group = co / g->group_outputs, ci0 = group * g->group_inputs;
    long double sum = 0;
    convt3d_meet d = convt3d_meet_first(&axis[0], o[0]);
    while (convt3d_meet_next(&d)) {
        convt3d_meet h = convt3d_meet_first(&axis[1], o[1]);
        while (convt3d_meet_next(&h)) {
            convt3d_meet w = convt3d_meet_first(&axis[2], o[2]);
            while (convt3d_meet_next(&w)) {
                for (int64_t ci = ci0; ci < ci0 + g->group_inputs; ci++)
                    sum +=
                        load(&c->input, at(&c->input, n, ci, d.i, h.i, w.i)) *
                        load(&c->weight, at(&c->weight, ci, co % g->group_outputs, d.k, h.k, w.k));
            }
        }
    }
    return sum;
}

/* The grad_output index that input i reaches through tap k; -1: none. */
static int64_t reached(const convt3d_axis *axis, int64_t i, int64_t k) {
    return convt3d_fold(axis, i * axis->stride + k * axis->dilation);
}

static long double backward_input_one(const convt3d_call *c, int64_t n, int64_t ci,
                                      const int64_t i[3]) {
    const convt3d_geometry *g = &c->plan->geometry;
    const convt3d_axis *axis = g->axis;
    int64_t co0 = ci / g->group_inputs * g->group_outputs;
    long double sum = 0;
    for (int64_t kd = 0; kd < axis[0].kernel; kd++) {
        int64_t od = reached(&axis[0], i[0], kd);
        for (int64_t kh = 0; kh < axis[1].kernel && od >= 0; kh++) {
            int64_t oh = reached(&axis[1], i[1], kh);
            for (int64_t kw = 0; kw < axis[2].kernel && oh >= 0; kw++) {
                int64_t ow = reached(&axis[2], i[2], kw);
                for (int64_t co = 0; co < g->group_outputs && ow >= 0; co++)
                    sum += load(&c->output, at(&c->output, n, co0 + co, od, oh, ow)) *
                           load(&c->weight, at(&c->weight, ci, co, kd, kh, kw));
            }
        }
    }
    return sum;
}

static long double backward_weight_one(convt3d_call *c, int64_t ci, int64_t co, const int64_t k[3],
                                       int thread) {
    const convt3d_geometry *g = &c->plan->geometry;
    const convt3d_axis *axis = g->axis;
    int64_t from = ci / g->group_inputs * g->group_outputs + co;
    long double sum = 0;
    for (int64_t n = 0; n < g->batch; n++) {
        for (int64_t id = 0; id < axis[0].in; id++) {
            int64_t od = reached(&axis[0], id, k[0]);
            if (convt3d_stopped(&c->job, thread)) return 0;
            for (int64_t ih = 0; ih < axis[1].in && od >= 0; ih++) {
                int64_t oh = reached(&axis[1], ih, k[1]);
                for (int64_t iw = 0; iw < axis[2].in && oh >= 0; iw++) {
                    int64_t ow = reached(&axis[2], iw, k[2]);
                    if (ow >= 0)
                        sum += load(&c->input, at(&c->input, n, ci, id, ih, iw)) *
                               load(&c->output, at(&c->output, n, from, od, oh, ow));
                }
            }
        }
    }
    return sum;
}

static long double bias_one(convt3d_call *c, int64_t co, int thread) {
    const convt3d_geometry *g = &c->plan->geometry;
    long double sum = 0;
    for (int64_t n = 0; n < g->batch; n++) {
        for (int64_t d = 0; d < g->axis[0].out; d++) {
            if (convt3d_stopped(&c->job, thread)) return 0;
            for (int64_t h = 0; h < g->axis[1].out; h++) {
                for (int64_t w = 0; w < g->axis[2].out; w++)
                    sum += load(&c->output, at(&c->output, n, co, d, h, w));
            }
        }
    }
    return sum;
}

/* The five sizes of what a task list covers: a task is one value of the first
 * two, and does all of the last three. */
static const convt3d_view *result_of(const convt3d_call *c) {
    switch (c->plan->direction) {
    case CONVT3D_FORWARD:
        return &c->output;
    case CONVT3D_BACKWARD_INPUT:
        return &c->grad_input;
    default:
        return &c->weight;
    }
}

/* Of conv + bias as a number holds it. */
static long double activated(const convt3d_plan *plan, long double value) {
    const double x = plan->geometry.element == 4 ? (float)value : (double)value;
    if (plan->activation == CONVT3D_ACTIVATION_NONE) return value;
    return convt3d_activation_value(plan->activation, plan->negative_slope, x);
}

static long double one(convt3d_call *c, int64_t a, int64_t b, const int64_t p[3], int thread) {
    switch (c->plan->direction) {
    case CONVT3D_FORWARD:
        return activated(c->plan,
                         forward_one(c, a, b, p) +
                             (c->bias.data ? load(&c->bias, at(&c->bias, b, 0, 0, 0, 0)) : 0));
    case CONVT3D_BACKWARD_INPUT:
        return backward_input_one(c, a, b, p);
    default:
        return backward_weight_one(c, a, b, p, thread);
    }
}

static void task(void *arg, int64_t index, int thread) {
    convt3d_call *c = arg;
    const convt3d_view *result = result_of(c);
    int64_t a = index / result->size[1], b = index % result->size[1], p[3];
    for (p[0] = 0; p[0] < result->size[2]; p[0]++) {
        for (p[1] = 0; p[1] < result->size[3]; p[1]++) {
            for (p[2] = 0; p[2] < result->size[4]; p[2]++) {
                if (convt3d_stopped(&c->job, thread)) return;
                store(result, at(result, a, b, p[0], p[1], p[2]), one(c, a, b, p, thread),
                      c->accumulate);
            }
        }
    }
}

static void bias_task(void *arg, int64_t index, int thread) {
    convt3d_call *c = arg;
    store(&c->bias, at(&c->bias, index, 0, 0, 0, 0), bias_one(c, index, thread), c->accumulate);
}

/* The packed weights of this algorithm are a dense copy. */
static void dense_weight(const convt3d_plan *plan, convt3d_view *view, convt3d_packed *packed) {
    const convt3d_geometry *g = &plan->geometry;
    const int64_t size[5] = {g->in_channels, g->group_outputs, g->axis[0].kernel, g->axis[1].kernel,
                             g->axis[2].kernel};
    int64_t stride = 1;
    view->data = (char *)packed + CONVT3D_ALIGN;
    view->dtype = plan->problem.dtype;
    for (int i = 4; i >= 0; i--) {
        view->size[i] = size[i];
        view->stride[i] = stride;
        stride *= size[i];
    }
}

static void run(convt3d_call *c) {
    int weight_gradient = c->plan->direction == CONVT3D_BACKWARD_WEIGHT;
    if (!weight_gradient) dense_weight(c->plan, &c->weight, c->packed);
    if (!weight_gradient || c->has_weight) {
        const convt3d_view *result = result_of(c);
        convt3d_parallel(&c->job, weight_gradient && c->bias.data ? 0.95 : 1,
                         result->size[0] * result->size[1], task, c);
    }
    if (weight_gradient && c->bias.data)
        convt3d_parallel(&c->job, 1, c->plan->geometry.out_channels, bias_task, c);
}

static int64_t pack_tasks(const convt3d_plan *plan) {
    return plan->geometry.in_channels;
}

static void pack(const convt3d_plan *plan, const convt3d_view *weight, convt3d_packed *packed,
                 int64_t ci, int thread) {
    const convt3d_geometry *g = &plan->geometry;
    convt3d_view to;
    (void)thread;
    dense_weight(plan, &to, packed);
    for (int64_t co = 0; co < g->group_outputs; co++) {
        for (int64_t d = 0; d < g->axis[0].kernel; d++) {
            for (int64_t h = 0; h < g->axis[1].kernel; h++) {
                for (int64_t w = 0; w < g->axis[2].kernel; w++)
                    memcpy(at(&to, ci, co, d, h, w), at(weight, ci, co, d, h, w), g->stored);
            }
        }
    }
}

static convt3d_status prepare(convt3d_plan *plan, int *accepted, const char **why,
                              convt3d_error *err) {
    const convt3d_geometry *g = &plan->geometry;
    const int64_t sizes[5] = {g->in_channels, g->group_outputs, g->axis[0].kernel,
                              g->axis[1].kernel, g->axis[2].kernel};
    (void)err;
    (void)why;
    *accepted = 1;
    if (plan->direction != CONVT3D_BACKWARD_WEIGHT) {
        convt3d_bytes(sizes, 5, g->stored, &plan->packed_bytes); /* fits: it is the weight */
        plan->packed_bytes += CONVT3D_ALIGN;
    }
    return CONVT3D_OK;
}

static int scratch(const convt3d_plan *plan, int32_t threads, size_t *bytes) {
    (void)plan;
    (void)threads;
    *bytes = 0;
    return 1;
}

static void describe(const convt3d_plan *plan, convt3d_text *text) {
    (void)plan;
    convt3d_text_add(text, "method: one output at a time, accumulated in long double\n");
}

const convt3d_algorithm convt3d_reference_algorithm = {
    .name = "reference",
    .prepare = prepare,
    .scratch = scratch,
    .run = run,
    .pack_tasks = pack_tasks,
    .pack = pack,
    .describe = describe,
};
