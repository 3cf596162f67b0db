/* outer_sums: the sums of backward_weight's chunks to the caller's gradients.
 * SPDX-License-Identifier: MIT */
#include "number.h"
#include "outer.h"
#include "tiles.h"

char *convt3d_outer_sums(const convt3d_call *call, int64_t chunk) {
    const convt3d_outer *c = call->plan->details;
    return call->scratch + c->bias_bytes + (size_t)chunk * c->sums_bytes;
}

char *convt3d_outer_scratch(const convt3d_call *call, int thread) {
    const convt3d_outer *c = call->plan->details;
    return convt3d_outer_sums(call, c->chunks == 1 ? 0 : c->chunks) +
           (size_t)thread * c->thread_bytes;
}

/* ---- Weights ------------------------------------------------------------------------------- */

static const convt3d_movers *movers_of(const convt3d_call *call) {
    return convt3d_movers_of(call->plan, call->weight.dtype);
}

/* Whether all taps of a pair of channels lie in one piece there. */
static int are_dense(const convt3d_call *call) {
    const convt3d_axis *axis = call->plan->geometry.axis;
    const int64_t *stride = call->weight.stride;
    return stride[4] == 1 && stride[3] == axis[2].kernel && stride[2] == stride[3] * axis[1].kernel;
}

static convt3d_store how_of(const convt3d_call *call) {
    return call->accumulate ? CONVT3D_STORE_ADD : CONVT3D_STORE_PLAIN;
}

static const double no_bias = 0; /* of either type */

/* All taps of one pair of channels, from a line of them. */
static void write_line(const convt3d_call *call, char *to, const char *line) {
    const convt3d_axis *axis = call->plan->geometry.axis;
    const convt3d_view *w = &call->weight;
    const int64_t element = (int64_t)call->plan->geometry.element;
    const convt3d_lay lay = {.to_row = w->stride[3],
                             .step = w->stride[4],
                             .from_row = {axis[2].kernel},
                             .lanes = 1,
                             .rows = axis[1].kernel,
                             .count = axis[2].kernel,
                             .bias = &no_bias,
                             .how = how_of(call)};
    for (int64_t d = 0; d < axis[0].kernel; d++) {
        convt3d_lay plane = lay;
        plane.to = to + d * w->stride[2] * (int64_t)movers_of(call)->element;
        plane.from[0] = line + d * axis[1].kernel * axis[2].kernel * element;
        movers_of(call)->store(&plane);
    }
}

/* The same of 'count' pairs, to_step apart there and one line after another here. */
static void write_lines(const convt3d_call *call, char *to, int64_t to_step, const char *lines,
                        int64_t count) {
    const convt3d_outer *c = call->plan->details;
    const int64_t element = (int64_t)call->plan->geometry.element;
    const int whole = to_step == c->taps; /* in one piece as well */
    const convt3d_lay lay = {.to = to,
                             .to_row = to_step,
                             .step = 1,
                             .from = {lines},
                             .from_row = {c->taps},
                             .lanes = 1,
                             .rows = whole ? 1 : count,
                             .count = whole ? count * c->taps : c->taps,
                             .bias = &no_bias,
                             .how = how_of(call)};
    if (are_dense(call)) {
        movers_of(call)->store(&lay);
        return;
    }
    for (int64_t i = 0; i < count; i++)
        write_line(call, to + i * to_step * (int64_t)movers_of(call)->element,
                   lines + i * c->taps * element);
}

/* Lanes added up, in an order that depends on nothing. */
static void write_dots(const convt3d_call *call, char *line, char *to, const char *sums) {
    const convt3d_plan *plan = call->plan;
    const convt3d_outer *c = plan->details;
    const int64_t element = (int64_t)plan->geometry.element, lanes = plan->type->lanes;
    for (int64_t tap = 0; tap < c->taps; tap++) {
        const double sum = plan->type->own.sum(sums + tap * lanes * element, 0, 1, 1, lanes);
        if (element == 4)
            ((float *)line)[tap] = (float)sum;
        else
            ((double *)line)[tap] = sum;
    }
    write_line(call, to, line);
}

void convt3d_outer_write(const convt3d_call *call, int thread, int64_t group, int64_t block,
                         char *sums) {
    const convt3d_plan *plan = call->plan;
    const convt3d_outer *c = plan->details;
    const convt3d_view *w = &call->weight;
    const int64_t element = (int64_t)plan->geometry.element;
    const int64_t stored = (int64_t)movers_of(call)->element;
    const convt3d_side *side = c->x_is_a ? &c->x : &c->dy;
    const int64_t a0 = block * c->rows, a1 = min64(a0 + c->rows, side->channels);
    const int64_t b_channels = c->x_is_a ? c->dy.channels : c->x.channels;
    const int64_t a_stride = w->stride[c->x_is_a ? 0 : 1], b_stride = w->stride[c->x_is_a ? 1 : 0];
    const int64_t lanes = plan->type->lanes;
    const int direct = are_dense(call) && !call->accumulate && movers_of(call) == &plan->type->own;
    char *line = convt3d_outer_scratch(call, thread) + c->at_line;
    char *to = w->data + group * c->x.channels * w->stride[0] * stored;
    if (c->dots) {
        const int64_t ci = block / c->dy.channels, co = block % c->dy.channels;
        write_dots(call, line, to + (ci * w->stride[0] + co * w->stride[1]) * stored, sums);
        return;
    }
    for (int64_t a = a0; a < a1; a++) {
        const char *from = sums + (a - a0) * c->b_length * element;
        if (direct) { /* sums are what goes there */
            plan->type->own.transpose(to + a * a_stride * stored, b_stride, from,
                                      c->rows * c->b_length, 1, c->taps, c->taps, b_channels);
            continue;
        }
        for (int64_t b = 0; b < b_channels; b += lanes) {
            const int64_t count = min64(lanes, b_channels - b);
            plan->type->own.transpose(line, c->taps, from + b * element, c->rows * c->b_length, 1,
                                      c->taps, c->taps, count);
            write_lines(call, to + (a * a_stride + b * b_stride) * stored, b_stride, line, count);
        }
    }
}

/* One block of one group: adds its chunks, then writes its weights. */
static void reduce_task(void *arg, int64_t index, int thread) {
    const convt3d_call *call = arg;
    const convt3d_plan *plan = call->plan;
    const convt3d_outer *c = plan->details;
    const int64_t offset = index * c->block_sums * (int64_t)plan->geometry.element;
    char *sums = convt3d_outer_sums(call, 0) + offset;
    for (int64_t chunk = 1; chunk < c->chunks; chunk++)
        plan->type->add(sums, 1, convt3d_outer_sums(call, chunk) + offset, c->block_sums);
    convt3d_outer_write(call, thread, index / c->blocks, index % c->blocks, sums);
}

void convt3d_outer_reduce(convt3d_call *call, double until) {
    const convt3d_outer *c = call->plan->details;
    if (c->chunks == 1) return; /* the tasks have written theirs */
    convt3d_parallel(&call->job, until, call->plan->geometry.groups * c->blocks, reduce_task, call);
}

/* ---- Bias ------------------------------------------------------------------------------------ */

enum {
    BIAS_ROWS = 64 /* between two looks at the clock */
};

/* One part of one channel's sum, in double: its rows in order, those of a plane at once. */
static void bias_task(void *arg, int64_t index, int thread) {
    convt3d_call *call = arg;
    const convt3d_geometry *g = &call->plan->geometry;
    const convt3d_view *v = &call->output;
    const int64_t height = g->axis[1].out, rows = g->batch * g->axis[0].out * height;
    const int64_t channel = index / CONVT3D_BIAS_PARTS, part = index % CONVT3D_BIAS_PARTS;
    const int64_t end = convt3d_part_start(rows, CONVT3D_BIAS_PARTS, part + 1);
    double sum = 0;
    for (int64_t row = convt3d_part_start(rows, CONVT3D_BIAS_PARTS, part), some; row < end;
         row += some) {
        const int64_t h = row % height, plane = row / height;
        const int64_t d = plane % g->axis[0].out, n = plane / g->axis[0].out;
        some = min64(min64(height - h, end - row), BIAS_ROWS);
        sum += call->plan->movers->sum(v->data + (n * v->stride[0] + channel * v->stride[1] +
                                                  d * v->stride[2] + h * v->stride[3]) *
                                                     (int64_t)g->stored,
                                       v->stride[3], some, v->stride[4], g->axis[2].out);
        if (convt3d_stopped(&call->job, thread)) return;
    }
    ((double *)call->scratch)[index] = sum;
}

void convt3d_outer_store_bias(convt3d_call *call, const double *part, int64_t parts) {
    const convt3d_geometry *g = &call->plan->geometry;
    for (int64_t channel = 0; channel < g->out_channels; channel++, part += parts) {
        const convt3d_dtype dtype = call->bias.dtype;
        char *to =
            call->bias.data + channel * call->bias.stride[0] * (int64_t)convt3d_dtype_size(dtype);
        double sum = 0;
        for (int64_t i = 0; i < parts; i++) sum += part[i];
        if (call->accumulate) sum += convt3d_number_get(dtype, to);
        convt3d_number_put(dtype, to, sum);
    }
}

void convt3d_outer_bias(convt3d_call *call) {
    convt3d_parallel(&call->job, 1, call->plan->geometry.out_channels * CONVT3D_BIAS_PARTS,
                     bias_task, call);
    if (!call->job.cancelled)
        convt3d_outer_store_bias(call, (const double *)call->scratch, CONVT3D_BIAS_PARTS);
}
