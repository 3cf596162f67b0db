/* outer_rows: the rows that a block of backward_weight needs, packed, and which of
 * them meet.
 * SPDX-License-Identifier: MIT */
#include "outer.h"

#include <string.h>

static int64_t element_of(const convt3d_outer_task *t) {
    return (int64_t)t->plan->geometry.element;
}

static int is_a(const convt3d_outer_task *t, const convt3d_side *side) {
    return (side == &t->c->x) == (t->c->x_is_a != 0);
}

/* The channels of a side that the task packs, counted from its first group's first. */
static void channels_of(const convt3d_outer_task *t, const convt3d_side *side, int64_t *from,
                        int64_t *end) {
    *from = 0;
    *end = t->groups * side->channels;
    if (t->c->dots || !is_a(t, side)) return;
    *from = t->block0 * t->c->rows;
    *end = min64(t->block1 * t->c->rows, side->channels);
}

int64_t convt3d_outer_row(const convt3d_outer_task *t, const convt3d_side *side) {
    int64_t from, end;
    if (!t->c->dots && !is_a(t, side)) return side->positions * t->c->b_length;
    channels_of(t, side, &from, &end);
    return side->positions * (end - from);
}

/* A row's spans to 'to': across for vectors of channels, else channel by channel. */
static void pack_row(const convt3d_outer_task *t, const convt3d_side *side, const convt3d_view *v,
                     char *to, const char *from, const convt3d_span *span, int64_t spans) {
    const convt3d_type_kernels *type = t->plan->type;
    const int64_t element = element_of(t), *stride = v->stride;
    int64_t channel, end;
    channels_of(t, side, &channel, &end);
    from += channel * stride[1] * element;
    for (int64_t i = 0; i < spans; i++) {
        const int64_t step = stride[4] * span[i].step, count = span[i].count;
        const char *p = from + span[i].from * stride[4] * element;
        if (!t->c->dots && !is_a(t, side)) {
            type->transpose(to + span[i].to * t->c->b_length * element, t->c->b_length, p,
                            stride[1], step, end - channel, t->c->b_length, count);
        } else if (stride[1] == 1 && end - channel > 1) {
            type->transpose(to + span[i].to * element, side->positions, p, step, 1, count, count,
                            end - channel);
        } else {
            const convt3d_rows rows = {.to = to + span[i].to * element,
                                       .to_step = {side->positions},
                                       .from = p,
                                       .from_step = {stride[1], 0, step},
                                       .count = {end - channel, 1, count}};
            type->gather(&rows);
        }
    }
}

/* The sample and row of a plane, counted over all samples. */
static const char *row_at(const convt3d_outer_task *t, const convt3d_view *v,
                          const convt3d_side *side, int64_t plane, int64_t depth, int64_t h) {
    return v->data + (plane / depth * v->stride[0] + t->group * side->channels * v->stride[1] +
                      plane % depth * v->stride[2] + h * v->stride[3]) *
                         element_of(t);
}

static int pack_x(const convt3d_outer_task *t) {
    const convt3d_side *side = &t->c->x;
    const convt3d_span whole = {0, 1, side->positions, 0};
    const int64_t bytes = convt3d_outer_row(t, side) * element_of(t);
    char *to = t->x;
    for (int64_t plane = t->first[0]; plane < t->end[0]; plane++) {
        for (int64_t h = t->first[1]; h < t->end[1]; h++, to += bytes) {
            if (convt3d_stopped(&t->call->job, t->thread)) return 0;
            pack_row(t, side, &t->call->input, to,
                     row_at(t, &t->call->input, side, plane, t->plan->geometry.axis[0].in, h),
                     &whole, 1);
        }
    }
    return 1;
}

/* Halo isn't packed: taps are cut to where the data is real.  For dots it is zeros. */
static int pack_dy(const convt3d_outer_task *t) {
    const convt3d_side *side = &t->c->dy;
    const int64_t bytes = convt3d_outer_row(t, side) * element_of(t);
    char *to = t->dy;
    for (int64_t d = 0; d < t->listed[0]; d++) {
        for (int64_t h = 0; h < t->listed[1]; h++, to += bytes) {
            if (convt3d_stopped(&t->call->job, t->thread)) return 0;
            if (t->c->dots) memset(to, 0, (size_t)bytes);
            pack_row(t, side, &t->call->output, to,
                     row_at(t, &t->call->output, side, t->list[0][d], t->plan->geometry.axis[0].out,
                            t->list[1][h]),
                     t->c->span, t->c->spans);
        }
    }
    return 1;
}

/* The dy row that x row i meets through tap k of an axis, planes counted over all
 * samples; -1: none. */
static int64_t meets(const convt3d_outer_task *t, int a, int64_t i, int64_t k) {
    const convt3d_axis *axis = &t->plan->geometry.axis[a];
    const int64_t sample = a ? 0 : i / axis->in;
    const int64_t o =
        convt3d_fold(axis, (i - sample * axis->in) * axis->stride + k * axis->dilation);
    return o < 0 ? -1 : sample * axis->out + o;
}

/* Lists the dy rows of the block on one axis, and their places. */
static void list_dy(convt3d_outer_task *t, int a) {
    const int64_t kernel = t->plan->geometry.axis[a].kernel;
    t->listed[a] = 0;
    for (int64_t i = t->first[a]; i < t->end[a]; i++) {
        for (int64_t k = 0; k < kernel; k++) {
            int64_t o = meets(t, a, i, k);
            if (o >= 0) t->listed[a] = convt3d_list_add(t->list[a], t->listed[a], o);
        }
    }
    for (int64_t i = t->first[a]; i < t->end[a]; i++) {
        for (int64_t k = 0; k < kernel; k++) {
            int64_t o = meets(t, a, i, k);
            t->meets[a][(i - t->first[a]) * kernel + k] =
                o < 0 ? -1 : convt3d_list_place(t->list[a], t->listed[a], o);
        }
        if (convt3d_stopped(&t->call->job, t->thread)) return;
    }
}

int convt3d_outer_pack(convt3d_outer_task *t) {
    const int64_t rows = (t->end[0] - t->first[0]) * (t->end[1] - t->first[1]);
    for (int a = 0; a < 2; a++) list_dy(t, a);
    if (!pack_x(t) || !pack_dy(t)) return 0;
    t->clip = t->c->dots && t->plan->type->nonfinite(t->x, rows * convt3d_outer_row(t, &t->c->x));
    return 1;
}
