/* outer_rows: the rows that a block of backward_weight needs, packed, and which of
 * them meet.
 * SPDX-License-Identifier: MIT */
#include "outer.h"

#include <string.h>

static int64_t element_of(const convt3d_outer_task *t) {
    return (int64_t)t->plan->geometry.element;
}

/* In the caller's memory. */
static int64_t stored_of(const convt3d_outer_task *t) {
    return (int64_t)t->plan->movers->element;
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

/* Dots have grad_output parted by phase: span i and the one after it at once, where these are
 * the even and the odd elements of a row. */
static int gather_both(const convt3d_outer_task *t, const convt3d_rows *grid, int64_t i) {
    const convt3d_span *two = &t->c->span[i];
    convt3d_rows both = *grid;
    if (i + 1 >= t->c->spans || grid->from_step[2] != 2) return 0;
    const convt3d_span *even = convt3d_spans_first(&two[0], &two[1]);
    if (!even) return 0;
    const convt3d_span *odd = &two[even == two];
    const int64_t element = element_of(t), first = t->c->span[i].from - even->from;
    both.from = (const char *)grid->from - first * stored_of(t);
    both.to = (char *)grid->to + (even->to - t->c->span[i].to) * element;
    both.odd = (char *)grid->to + (odd->to - t->c->span[i].to) * element;
    both.count[2] = even->count;
    both.odds = odd->count;
    t->plan->movers->gather(&both);
    return 1;
}

/* A row's spans to 'to': across for vectors of channels, else channel by channel, and then
 * 'rows' of them that follow each other in the caller's memory. */
static void pack_rows(const convt3d_outer_task *t, const convt3d_side *side, const convt3d_view *v,
                      char *to, const char *from, int64_t rows) {
    const convt3d_movers *movers = t->plan->movers;
    const int64_t element = element_of(t), stored = stored_of(t), *stride = v->stride;
    const convt3d_span whole = {0, 1, side->positions, 0};
    const convt3d_span *span = side == &t->c->x ? &whole : t->c->span;
    const int64_t spans = side == &t->c->x ? 1 : t->c->spans;
    int64_t channel, end;
    channels_of(t, side, &channel, &end);
    from += channel * stride[1] * stored;
    for (int64_t i = 0; i < spans; i++) {
        const int64_t step = stride[4] * span[i].step, count = span[i].count;
        const char *p = from + span[i].from * stride[4] * stored;
        if (!t->c->dots && !is_a(t, side)) {
            movers->transpose(to + span[i].to * t->c->b_length * element, t->c->b_length, p,
                              stride[1], step, end - channel, t->c->b_length, count);
        } else if (stride[1] == 1 && end - channel > 1) {
            movers->transpose(to + span[i].to * element, side->positions, p, step, 1, count, count,
                              end - channel);
        } else {
            const convt3d_rows grid = {.to = to + span[i].to * element,
                                       .to_step = {side->positions, convt3d_outer_row(t, side)},
                                       .from = p,
                                       .from_step = {stride[1], stride[3], step},
                                       .count = {end - channel, rows, count}};
            if (t->c->dots && side == &t->c->dy && gather_both(t, &grid, i))
                i++;
            else
                movers->gather(&grid);
        }
    }
}

/* How many rows of a side pack_rows() takes at once, where as many follow each other. */
static int64_t rows_at_once(const convt3d_outer_task *t, const convt3d_side *side,
                            const convt3d_view *v, int64_t rows) {
    enum {
        ROWS = 16 /* between two looks at the clock */
    };
    if (t->c->dots || !is_a(t, side) || v->stride[1] == 1) return 1;
    return min64(rows, ROWS);
}

/* The sample and row of a plane, counted over all samples. */
const char *convt3d_outer_row_at(const convt3d_outer_task *t, const convt3d_view *v,
                                 const convt3d_side *side, int64_t plane, int64_t depth,
                                 int64_t h) {
    return v->data + (plane / depth * v->stride[0] + t->group * side->channels * v->stride[1] +
                      plane % depth * v->stride[2] + h * v->stride[3]) *
                         stored_of(t);
}

static int pack_x(const convt3d_outer_task *t) {
    const convt3d_side *side = &t->c->x;
    const convt3d_view *v = &t->call->input;
    const int64_t bytes = convt3d_outer_row(t, side) * element_of(t);
    char *to = t->x;
    for (int64_t plane = t->first[0]; plane < t->end[0]; plane++) {
        for (int64_t h = t->first[1], rows; h < t->end[1]; h += rows, to += rows * bytes) {
            rows = rows_at_once(t, side, v, t->end[1] - h);
            if (convt3d_stopped(&t->call->job, t->thread)) return 0;
            pack_rows(t, side, v, to,
                      convt3d_outer_row_at(t, v, side, plane, t->plan->geometry.axis[0].in, h),
                      rows);
        }
    }
    return 1;
}

/* Halo isn't packed: taps are cut to where the data is real.  For dots it is zeros. */
static int pack_dy(const convt3d_outer_task *t) {
    const convt3d_side *side = &t->c->dy;
    const convt3d_view *v = &t->call->output;
    const int64_t bytes = convt3d_outer_row(t, side) * element_of(t), *list = t->list[1];
    char *to = t->dy;
    for (int64_t d = 0; d < t->listed[0]; d++) {
        for (int64_t h = 0, rows; h < t->listed[1]; h += rows, to += rows * bytes) {
            int64_t next = 1;
            while (h + next < t->listed[1] && list[h + next] == list[h] + next) next++;
            rows = rows_at_once(t, side, v, next);
            if (convt3d_stopped(&t->call->job, t->thread)) return 0;
            if (t->c->dots) memset(to, 0, (size_t)(rows * bytes));
            pack_rows(t, side, v, to,
                      convt3d_outer_row_at(t, v, side, t->list[0][d], t->plan->geometry.axis[0].out,
                                           list[h]),
                      rows);
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

/* ---- Ahead of time ----------------------------------------------------------------------- */

/* The dy rows between the first and the last that x rows first to end meet, without a fold:
 * planes counted over all samples, of one sample. */
static void reached(const convt3d_outer_task *t, int a, int64_t first, int64_t end, int64_t o[2]) {
    const convt3d_axis *axis = &t->plan->geometry.axis[a];
    const int64_t sample = a ? 0 : first / axis->in, i0 = first - sample * axis->in;
    const int64_t i1 = min64(end - sample * axis->in, axis->in) - 1;
    const int64_t reach = (axis->kernel - 1) * axis->dilation;
    o[0] = sample * axis->out + max64(i0 * axis->stride - axis->before, 0);
    o[1] = sample * axis->out + min64(i1 * axis->stride + reach - axis->before + 1, axis->out);
}

void convt3d_outer_ask(const convt3d_outer_task *t, const int64_t first[2], const int64_t end[2]) {
    const convt3d_view *v = &t->call->output;
    const convt3d_side *side = &t->c->dy;
    const int64_t most = t->c->dy_rows[0] * t->c->dy_rows[1] * side->channels;
    int64_t o[2][2], channel, last;
    channels_of(t, side, &channel, &last);
    convt3d_asks_clear(t->asks, v->size[4] * stored_of(t));
    for (int a = 0; a < 2; a++) reached(t, a, first[a], end[a], o[a]);
    for (int64_t d = o[0][0]; d < o[0][1]; d++) {
        const int here = convt3d_list_has(t->list[0], t->listed[0], d);
        for (int64_t k = channel; k < last; k++) {
            for (int64_t h = o[1][0]; h < o[1][1] && t->asks->count < most; h++) {
                if (here && convt3d_list_has(t->list[1], t->listed[1], h)) continue;
                t->asks->row[t->asks->count++] =
                    convt3d_outer_row_at(t, v, side, d, t->plan->geometry.axis[0].out, h) +
                    k * v->stride[1] * stored_of(t);
            }
        }
    }
    convt3d_asks_ready(t->asks);
}

/* ---- The bias gradient ------------------------------------------------------------------- */

/* Whether the first x row that meets dy row o of an axis is one of the block: one block only
 * has it so. */
static int is_own(const convt3d_outer_task *t, int a, int64_t o) {
    const convt3d_axis *axis = &t->plan->geometry.axis[a];
    const int64_t sample = a ? 0 : o / axis->out, u = o - sample * axis->out + axis->before;
    const int64_t i = max64(0, convt3d_ceil_div(u - (axis->kernel - 1), axis->stride));
    return sample * axis->in + i >= t->first[a] && sample * axis->in + i < t->end[a];
}

/* Adds the block's own dy rows up, while they are close. */
static void sum_rows(const convt3d_outer_task *t) {
    const convt3d_side *side = &t->c->dy;
    const int64_t row = convt3d_outer_row(t, side), element = element_of(t);
    double *sums = (double *)t->call->scratch;
    int64_t channel, end, h0 = 0, h1;
    channels_of(t, side, &channel, &end);
    while (h0 < t->listed[1] && !is_own(t, 1, t->list[1][h0])) h0++;
    for (h1 = h0; h1 < t->listed[1] && is_own(t, 1, t->list[1][h1]);) h1++;
    for (int64_t d = 0; d < t->listed[0]; d++) {
        const char *from = t->dy + (d * t->listed[1] + h0) * row * element;
        if (!is_own(t, 0, t->list[0][d])) continue;
        for (int64_t k = channel; k < end; k++, from += side->positions * element)
            sums[(t->group * side->channels + k) * CONVT3D_BIAS_PARTS + t->chunk] +=
                t->plan->type->own.sum(from, row, h1 - h0, 1, side->positions);
    }
}

void convt3d_outer_list(convt3d_outer_task *t) {
    for (int a = 0; a < 2; a++) list_dy(t, a);
}

int convt3d_outer_pack(convt3d_outer_task *t) {
    const int64_t rows = (t->end[0] - t->first[0]) * (t->end[1] - t->first[1]);
    convt3d_outer_list(t);
    if (!pack_x(t) || !pack_dy(t)) return 0;
    if (t->c->sums_bias && t->call->bias.data) sum_rows(t);
    t->clip = t->c->dots && t->plan->type->nonfinite(t->x, rows * convt3d_outer_row(t, &t->c->x));
    return 1;
}
