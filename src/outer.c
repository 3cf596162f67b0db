/* outer: the tasks of backward_weight: pack, multiply, add the chunks up.
 * SPDX-License-Identifier: MIT */
#include "outer.h"
#include "error.h"

#include <string.h>

/* One task: a chunk of planes, a group, and a range of side A's tiles. */
typedef struct task {
    const convt3d_plan *plan;
    const convt3d_outer *c;
    convt3d_call *call;
    int thread;
    int64_t group, sample;
    int64_t block0, block1;      /* A's tiles */
    int64_t first[2], end[2];    /* x rows that are packed: depth, height */
    int64_t listed[2], *list[2]; /* dy rows that are packed, rising */
    char *x, *dy, *sums;
    convt3d_segment *segment;
} task;

static int64_t element_of(const task *t) {
    return (int64_t)t->plan->geometry.element;
}

/* ---- Packing -------------------------------------------------------------------------- */

/* Elements of one packed row, and of one position in it. */
static int64_t row_elements(const task *t, int is_a, const convt3d_side *side) {
    const convt3d_outer *c = t->c;
    return side->positions * (is_a ? (t->block1 - t->block0) * c->rows : c->b_length);
}

/* Packs a piece of a row: all channels of the side across, from 'from' on. */
static void pack_span(const task *t, int is_a, const convt3d_side *side, const convt3d_view *v,
                      char *to, const char *from, const convt3d_span *span) {
    const convt3d_outer *c = t->c;
    const convt3d_type_kernels *type = t->plan->type;
    const int64_t element = element_of(t), step = v->stride[4] * span->step;
    from += span->from * v->stride[4] * element;
    if (!is_a) {
        type->transpose(to + span->to * c->b_length * element, c->b_length, from, v->stride[1],
                        step, side->channels, c->b_length, span->count);
        return;
    }
    for (int64_t block = t->block0; block < t->block1; block++) {
        int64_t channel = block * c->rows;
        type->transpose(to + ((block - t->block0) * side->positions + span->to) * c->rows * element,
                        c->rows, from + channel * v->stride[1] * element, v->stride[1], step,
                        min64(c->rows, side->channels - channel), c->rows, span->count);
    }
}

/* A row's first byte in the caller's tensor. */
static const char *row_at(const task *t, const convt3d_view *v, const convt3d_side *side, int64_t d,
                          int64_t h) {
    return v->data + (t->sample * v->stride[0] + t->group * side->channels * v->stride[1] +
                      d * v->stride[2] + h * v->stride[3]) *
                         element_of(t);
}

static void pack_x(const task *t) {
    const convt3d_outer *c = t->c;
    const convt3d_view *v = &t->call->input;
    const convt3d_span whole = {0, 1, c->x.positions, 0};
    int64_t bytes = row_elements(t, c->x_is_a, &c->x) * element_of(t);
    char *to = t->x;
    for (int64_t d = t->first[0]; d < t->end[0]; d++) {
        for (int64_t h = t->first[1]; h < t->end[1] && !convt3d_stopped(&t->call->job, t->thread);
             h++, to += bytes)
            pack_span(t, c->x_is_a, &c->x, v, to, row_at(t, v, &c->x, d, h), &whole);
    }
}

/* Halo isn't packed: taps are cut to where the data is real. */
static void pack_dy(const task *t) {
    const convt3d_outer *c = t->c;
    const convt3d_view *v = &t->call->output;
    int64_t bytes = row_elements(t, !c->x_is_a, &c->dy) * element_of(t);
    char *to = t->dy;
    for (int64_t d = 0; d < t->listed[0]; d++) {
        for (int64_t h = 0; h < t->listed[1]; h++, to += bytes) {
            const char *from = row_at(t, v, &c->dy, t->list[0][d], t->list[1][h]);
            for (int64_t i = 0; i < c->spans && !convt3d_stopped(&t->call->job, t->thread); i++)
                pack_span(t, !c->x_is_a, &c->dy, v, to, from, &c->span[i]);
        }
    }
}

/* The dy row that x row i meets through tap k of an axis; -1: none. */
static int64_t meets(const task *t, int a, int64_t i, int64_t k) {
    const convt3d_axis *axis = &t->plan->geometry.axis[a];
    return convt3d_fold(axis, i * axis->stride + k * axis->dilation);
}

static void list_dy(task *t, int a) {
    t->listed[a] = 0;
    for (int64_t i = t->first[a]; i < t->end[a]; i++) {
        if (convt3d_stopped(&t->call->job, t->thread)) return;
        for (int64_t k = 0; k < t->plan->geometry.axis[a].kernel; k++) {
            int64_t o = meets(t, a, i, k);
            if (o >= 0) t->listed[a] = convt3d_list_add(t->list[a], t->listed[a], o);
        }
    }
}

/* ---- Multiplying ------------------------------------------------------------------------ */

static void multiply(const task *t, int64_t block, int64_t tap, int64_t count) {
    const convt3d_outer *c = t->c;
    const convt3d_type_kernels *type = t->plan->type;
    const int64_t element = element_of(t);
    const convt3d_side *side = c->x_is_a ? &c->x : &c->dy;
    const char *a =
        (c->x_is_a ? t->x : t->dy) + (block - t->block0) * side->positions * c->rows * element;
    const char *b = c->x_is_a ? t->dy : t->x;
    char *sums = t->sums + (block * c->taps + tap) * c->rows * c->b_length * element;
    convt3d_tile tile = {.a = a,
                         .a_step = c->rows,
                         .a_row = 1,
                         .b_step = c->b_length,
                         .c_row = c->b_length,
                         .segments = t->segment,
                         .count = count,
                         .accumulate = 1};
    for (int64_t j = 0; j < c->b_length;) {
        int64_t vectors = min64((c->b_length - j) / type->lanes, c->vectors);
        tile.b = b + j * element;
        tile.c = sums + j * element;
        type->gemm[c->rows - 1][vectors - 1](&tile);
        j += vectors * type->lanes;
    }
}

/* One tap: a segment for each x row of the block that it carries to a dy row. */
static void run_tap(const task *t, int64_t block, int64_t kd, int64_t kh, const convt3d_tap *w) {
    const convt3d_outer *c = t->c;
    const convt3d_axis *axis = t->plan->geometry.axis;
    const int64_t i0 = w->real0 > 0 ? w->real0 : 0, i1 = min64(w->real1, axis[2].in);
    const int64_t tap = (kd * axis[1].kernel + kh) * axis[2].kernel + w->k;
    const int64_t x_row = row_elements(t, c->x_is_a, &c->x);
    const int64_t dy_row = row_elements(t, !c->x_is_a, &c->dy);
    const int64_t x_step = c->x_is_a ? c->rows : c->b_length;
    const int64_t dy_step = c->x_is_a ? c->b_length : c->rows;
    int64_t count = 0, height = t->end[1] - t->first[1];
    if (i0 >= i1) return;
    for (int64_t d = t->first[0]; d < t->end[0]; d++) {
        int64_t od = meets(t, 0, d, kd);
        if (od < 0) continue;
        int64_t dy_plane = convt3d_list_place(t->list[0], t->listed[0], od) * t->listed[1];
        for (int64_t h = t->first[1]; h < t->end[1]; h++) {
            int64_t oh = meets(t, 1, h, kh);
            if (oh < 0) continue;
            int64_t x = ((d - t->first[0]) * height + h - t->first[1]) * x_row + i0 * x_step;
            int64_t dy = (dy_plane + convt3d_list_place(t->list[1], t->listed[1], oh)) * dy_row +
                         (w->offset + i0) * dy_step;
            t->segment[count++] =
                (convt3d_segment){c->x_is_a ? x : dy, c->x_is_a ? dy : x, i1 - i0};
            if (count == CONVT3D_OUTER_SEGMENTS) {
                multiply(t, block, tap, count);
                count = 0;
            }
        }
    }
    if (count) multiply(t, block, tap, count);
}

/* The x rows first..end, with all that they meet; 0 if the run was stopped. */
static int run_block(task *t) {
    const convt3d_axis *axis = t->plan->geometry.axis;
    for (int a = 0; a < 2; a++) list_dy(t, a);
    pack_x(t);
    pack_dy(t);
    for (int64_t block = t->block0; block < t->block1; block++) {
        for (int64_t kd = 0; kd < axis[0].kernel; kd++) {
            for (int64_t kh = 0; kh < axis[1].kernel; kh++) {
                for (int64_t kw = axis[2].kernel - 1; kw >= 0; kw--) {
                    if (convt3d_stopped(&t->call->job, t->thread)) return 0;
                    run_tap(t, block, kd, kh, &t->c->tap[kw]);
                }
            }
        }
    }
    return 1;
}

static char *sums_of(const convt3d_call *call, int64_t chunk) {
    const convt3d_outer *c = call->plan->details;
    return call->scratch + c->bias_bytes + (size_t)chunk * c->sums_bytes;
}

static char *thread_scratch(const convt3d_call *call, int thread) {
    const convt3d_outer *c = call->plan->details;
    return sums_of(call, c->chunks) + (size_t)thread * c->thread_bytes;
}

/* Elements of one group's sums, and of one tile block's. */
static int64_t block_sums(const convt3d_outer *c) {
    return c->taps * c->rows * c->b_length;
}

static void run_task(void *arg, int64_t index, int thread) {
    convt3d_call *call = arg;
    const convt3d_plan *plan = call->plan;
    const convt3d_outer *c = plan->details;
    const int64_t depth = plan->geometry.axis[0].in, height = plan->geometry.axis[1].in;
    char *scratch = thread_scratch(call, thread);
    int64_t split = index % c->a_splits, rest = index / c->a_splits, chunk = rest % c->chunks;
    task t = {.plan = plan,
              .c = c,
              .call = call,
              .thread = thread,
              .group = rest / c->chunks,
              .block0 = c->a_blocks * split / c->a_splits,
              .block1 = c->a_blocks * (split + 1) / c->a_splits,
              .x = scratch,
              .dy = scratch + c->at_dy,
              .segment = (convt3d_segment *)(scratch + c->at_segments),
              .list = {(int64_t *)(scratch + c->at_list[0]), (int64_t *)(scratch + c->at_list[1])}};
    t.sums = sums_of(call, chunk) + t.group * c->a_blocks * block_sums(c) * element_of(&t);
    memset(t.sums + t.block0 * block_sums(c) * element_of(&t), 0,
           (size_t)((t.block1 - t.block0) * block_sums(c) * element_of(&t)));
    int64_t end = c->planes * (chunk + 1) / c->chunks;
    for (int64_t plane = c->planes * chunk / c->chunks, next; plane < end; plane = next) {
        t.sample = plane / depth;
        t.first[0] = plane % depth;
        t.end[0] = min64(min64(t.first[0] + c->block[0], depth), t.first[0] + end - plane);
        next = plane + t.end[0] - t.first[0];
        for (t.first[1] = 0; t.first[1] < height; t.first[1] = t.end[1]) {
            t.end[1] = min64(t.first[1] + c->block[1], height);
            if (!run_block(&t)) return;
        }
    }
}

/* ---- Adding the chunks up ------------------------------------------------------------------ */

/* One tile block of one group: adds its chunks, then writes its weights. */
static void reduce_task(void *arg, int64_t index, int thread) {
    convt3d_call *call = arg;
    const convt3d_plan *plan = call->plan;
    const convt3d_outer *c = plan->details;
    const convt3d_view *w = &call->weight;
    const convt3d_axis *axis = plan->geometry.axis;
    const int64_t element = (int64_t)plan->geometry.element, kernel_w = axis[2].kernel;
    const int64_t a_channels = c->x_is_a ? c->x.channels : c->dy.channels;
    const int64_t b_channels = c->x_is_a ? c->dy.channels : c->x.channels;
    int64_t group = index / c->a_blocks, a0 = index % c->a_blocks * c->rows;
    int64_t offset = index * block_sums(c) * element;
    char *sums = sums_of(call, 0) + offset, *line = thread_scratch(call, thread) + c->at_line;
    for (int64_t chunk = 1; chunk < c->chunks; chunk++)
        plan->type->add(sums, 1, sums_of(call, chunk) + offset, block_sums(c));
    for (int64_t a = a0; a < min64(a0 + c->rows, a_channels); a++) {
        for (int64_t b = 0; b < b_channels; b++) {
            int64_t ci = group * c->x.channels + (c->x_is_a ? a : b), co = c->x_is_a ? b : a;
            char *to = w->data + (ci * w->stride[0] + co * w->stride[1]) * element;
            plan->type->gather(line, sums + ((a - a0) * c->b_length + b) * element,
                               c->rows * c->b_length, c->taps);
            const char *row = line;
            for (int64_t d = 0; d < axis[0].kernel; d++) {
                for (int64_t h = 0; h < axis[1].kernel; h++, row += kernel_w * element) {
                    const void *from = row;
                    plan->type->store(to + (d * w->stride[2] + h * w->stride[3]) * element,
                                      w->stride[4], &from, 1, kernel_w, 0,
                                      call->accumulate ? CONVT3D_STORE_ADD : CONVT3D_STORE_PLAIN);
                }
            }
        }
    }
}

/* ---- Bias ------------------------------------------------------------------------------------ */

/* One part of one channel's sum, rows in order, in double. */
static void bias_task(void *arg, int64_t index, int thread) {
    convt3d_call *call = arg;
    const convt3d_geometry *g = &call->plan->geometry;
    const convt3d_view *v = &call->output;
    const int64_t rows = g->batch * g->axis[0].out * g->axis[1].out;
    int64_t channel = index / CONVT3D_BIAS_PARTS, part = index % CONVT3D_BIAS_PARTS;
    double sum = 0;
    for (int64_t row = rows / CONVT3D_BIAS_PARTS * part + min64(part, rows % CONVT3D_BIAS_PARTS),
                 end = row + rows / CONVT3D_BIAS_PARTS + (part < rows % CONVT3D_BIAS_PARTS);
         row < end; row++) {
        int64_t h = row % g->axis[1].out, d = row / g->axis[1].out % g->axis[0].out;
        int64_t n = row / g->axis[1].out / g->axis[0].out;
        sum += call->plan->type->sum(v->data + (n * v->stride[0] + channel * v->stride[1] +
                                                d * v->stride[2] + h * v->stride[3]) *
                                                   (int64_t)g->element,
                                     v->stride[4], g->axis[2].out);
        if ((row & 15) == 0 && convt3d_stopped(&call->job, thread)) return;
    }
    ((double *)call->scratch)[index] = sum;
}

static void store_bias(convt3d_call *call) {
    const convt3d_geometry *g = &call->plan->geometry;
    const double *part = (const double *)call->scratch;
    for (int64_t channel = 0; channel < g->out_channels; channel++, part += CONVT3D_BIAS_PARTS) {
        char *to = call->bias.data + channel * call->bias.stride[0] * (int64_t)g->element;
        double sum = 0;
        for (int i = 0; i < CONVT3D_BIAS_PARTS; i++) sum += part[i];
        if (g->element == 4)
            *(float *)to = (float)(sum + (call->accumulate ? (double)*(float *)to : 0));
        else
            *(double *)to = sum + (call->accumulate ? *(double *)to : 0);
    }
}

/* ---- The algorithm ------------------------------------------------------------------------------
 */

static int64_t weight_tasks(const convt3d_plan *plan) {
    const convt3d_outer *c = plan->details;
    return plan->geometry.groups * c->chunks * c->a_splits;
}

static int64_t reduce_tasks(const convt3d_plan *plan) {
    const convt3d_outer *c = plan->details;
    return plan->geometry.groups * c->a_blocks;
}

static int64_t bias_tasks(const convt3d_plan *plan) {
    return plan->geometry.out_channels * CONVT3D_BIAS_PARTS;
}

static void run(convt3d_call *call) {
    convt3d_job *job = &call->job;
    int bias = call->bias.data != NULL;
    if (call->has_weight) {
        convt3d_parallel(job, bias ? 0.90 : 0.95, weight_tasks(call->plan), run_task, call);
        convt3d_parallel(job, bias ? 0.95 : 1, reduce_tasks(call->plan), reduce_task, call);
    }
    if (bias) {
        convt3d_parallel(job, 1, bias_tasks(call->plan), bias_task, call);
        if (!job->cancelled) store_bias(call);
    }
}

static int scratch(const convt3d_plan *plan, int32_t threads, size_t *bytes) {
    const convt3d_outer *c = plan->details;
    *bytes = c->bias_bytes;
    return convt3d_grow(bytes, (size_t)c->chunks, c->sums_bytes) &&
           convt3d_grow(bytes, (size_t)threads, c->thread_bytes);
}

const convt3d_algorithm convt3d_engine_outer = {
    .name = "engine",
    .prepare = convt3d_outer_prepare,
    .scratch = scratch,
    .run = run,
    .describe = convt3d_outer_describe,
};
