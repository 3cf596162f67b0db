/* correlate_gather: the caller's rows into a task's slab, whatever the strides.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"

#include <string.h>

static int64_t magnitude(int64_t step) {
    return step < 0 ? -step : step;
}

int convt3d_correlate_closest(const convt3d_view *v, int axis) {
    if (v->size[axis] <= 1) return 0;
    for (int a = 0; a < 5; a++) {
        if (v->size[a] > 1 && magnitude(v->stride[a]) < magnitude(v->stride[axis])) return 0;
    }
    return 1;
}

int convt3d_correlate_across(const convt3d_task *t, const convt3d_view *v) {
    if (v == t->to && convt3d_is_merged(t->c)) return 0;
    int64_t channels = t->groups * (v == t->to ? t->c->m : t->c->k);
    return t->run == 1 && channels > 1 && magnitude(v->stride[1]) < magnitude(v->stride[4]);
}

enum {
    CHANNELS = 32 /* between two looks at the clock */
};

/* ---- Into the slab ------------------------------------------------------------------ */

int64_t convt3d_correlate_shift(const convt3d_task *t, int64_t part) {
    const convt3d_part *p = &t->c->part[part];
    if (t->cut->strips == 1) return 0;
    return p->low + t->q0 - t->c->first_position - p->before - part * t->cut->strip;
}

/* What the task's strip needs of a span, in its own row; may have no elements. */
static convt3d_span span_of(const convt3d_task *t, int64_t i) {
    convt3d_span span = t->c->span[i];
    if (t->cut->strips == 1) return span;
    const convt3d_part *part = &t->c->part[t->c->span_part[i]];
    int64_t from = part->low + t->q0 - t->c->first_position, first = max64(from, span.to);
    int64_t end = min64(from + t->cut->strip + part->reach, span.to + span.count);
    span.from += (first - span.to) * span.step;
    span.count = max64(end - first, 0);
    span.to = first - convt3d_correlate_shift(t, t->c->span_part[i]);
    return span;
}

/* Zeros for positions [p0, p1) of 'rows' slab rows. */
static void clear(const convt3d_task *t, char *to, int64_t rows, int64_t p0, int64_t p1) {
    const int64_t element = (int64_t)t->plan->geometry.element, position = t->run * element;
    const size_t bytes = (size_t)((p1 - p0) * position);
    if (p0 >= p1) return;
    to += p0 * position;
    for (int64_t r = 0; r < rows; r++, to += t->cut->row_pitch * element) {
        if (bytes == sizeof(float)) /* as a rule: no call for it */
            memset(to, 0, sizeof(float));
        else
            memset(to, 0, bytes);
    }
}

/* The halo of 'rows' slab rows: what no span covers. */
static void clear_halo(const convt3d_task *t, char *to, int64_t rows) {
    int64_t done = 0;
    for (int64_t i = 0; i < t->c->spans; i++) {
        const convt3d_span span = span_of(t, i);
        if (!span.count) continue;
        clear(t, to, rows, done, span.to);
        done = span.to + span.count;
    }
    clear(t, to, rows, done, t->cut->row_length);
}

/* Some channels' source rows, one or several that follow each other in the list. */
typedef struct patch {
    char *to;
    const char *from;
    int64_t channels, rows;
} patch;

/* Span i and the one after it, where these are the even and the odd elements of one
 * stretch: both at once. */
static int gather_both(const convt3d_task *t, const patch *p, int64_t i) {
    const int64_t element = (int64_t)t->plan->geometry.element, *stride = t->from->stride;
    const int64_t stored = (int64_t)t->movers->element;
    if (i + 1 >= t->c->spans || stride[4] != 1) return 0;
    const convt3d_span two[2] = {span_of(t, i), span_of(t, i + 1)};
    const convt3d_span *first = convt3d_spans_first(&two[0], &two[1]);
    if (!first) return 0;
    const convt3d_span even = *first, odd = two[first == two];
    const convt3d_rows rows = {.to = p->to + even.to * element,
                               .odd = p->to + odd.to * element,
                               .to_step = {t->cut->row_pitch, t->slab_step[1]},
                               .from = p->from + even.from * stored,
                               .from_step = {stride[1], stride[3], 2},
                               .count = {p->channels, p->rows, even.count},
                               .odds = odd.count};
    t->movers->gather(&rows);
    return 1;
}

static void gather_span(const convt3d_task *t, const patch *p, const convt3d_span *span) {
    const int64_t element = (int64_t)t->plan->geometry.element, *stride = t->from->stride;
    const int64_t stored = (int64_t)t->movers->element;
    const int64_t step = span->step * stride[4], pitch = t->cut->row_pitch;
    const char *from = p->from + span->from * stride[4] * stored;
    char *to = p->to + span->to * t->run * element;
    const convt3d_rows rows = {.to = to,
                               .to_step = {pitch, t->slab_step[1]},
                               .from = from,
                               .from_step = {stride[1], stride[3], step},
                               .count = {p->channels, p->rows, span->count}};
    if (convt3d_correlate_across(t, t->from)) {
        t->movers->transpose(to, pitch, from, step, stride[1], span->count, span->count,
                             p->channels);
        return;
    }
    if (t->run == 1) {
        t->movers->gather(&rows);
        return;
    }
    for (int64_t k = 0; k < p->channels; k++)
        t->movers->transpose(to + k * pitch * element, t->run, from + k * stride[1] * stored,
                             stride[0], step, t->run, t->run, span->count);
}

static void gather_patch(const convt3d_task *t, const patch *p) {
    const int64_t element = (int64_t)t->plan->geometry.element;
    const int parts = t->run == 1 && !convt3d_correlate_across(t, t->from);
    for (int64_t r = 0; r < p->rows; r++)
        clear_halo(t, p->to + r * t->slab_step[1] * element, p->channels);
    for (int64_t i = 0; i < t->c->spans; i++) {
        const convt3d_span span = span_of(t, i);
        if (!span.count) continue;
        if (parts && gather_both(t, p, i))
            i++;
        else
            gather_span(t, p, &span);
    }
}

/* How many listed rows from h on lie one behind the other both in the slab, without
 * halo, and in the caller's memory: they are one long row. */
static int64_t joined_rows(const convt3d_task *t, int64_t h, int64_t end) {
    const convt3d_span *span = &t->c->span[0];
    const int64_t *stride = t->from->stride, length = t->cut->row_length;
    int64_t rows = 1;
    if (t->cut->flat == 1 || t->c->spans != 1 || span->count != length || span->from != 0 ||
        stride[3] != length * stride[4] * span->step || convt3d_correlate_across(t, t->from))
        return 1;
    while (h + rows < end && t->list[1][h + rows] == t->list[1][h] + rows &&
           t->order[1][h + rows] == t->order[1][h] + rows)
        rows++;
    return rows;
}

/* As many rows as one long one. */
static void gather_joined(const convt3d_task *t, const patch *p) {
    const int64_t *stride = t->from->stride, step = t->c->span[0].step * stride[4];
    const convt3d_rows rows = {.to = p->to,
                               .to_step = {t->cut->row_pitch},
                               .from = p->from,
                               .from_step = {stride[1], 0, step},
                               .count = {p->channels, 1, p->rows * t->cut->row_length}};
    t->movers->gather(&rows);
}

/* How many listed rows from h on follow each other in the list and in the slab, which is
 * no use where they aren't gathered as they are. */
static int64_t rows_in_order(const convt3d_task *t, int64_t h, int64_t end) {
    int64_t rows = 1;
    if (t->run > 1 || convt3d_correlate_across(t, t->from)) return 1;
    while (h + rows < end && t->list[1][h + rows] == t->list[1][h] + rows &&
           t->order[1][h + rows] == t->order[1][h] + rows)
        rows++;
    return rows;
}

/* The slab: [depth][height][channel][position][sample], or, for rows that are run as
 * one, [depth][channel][height][position]. */
int convt3d_correlate_gather(const convt3d_task *t, int64_t from, int64_t end) {
    const convt3d_correlate *c = t->c;
    const int64_t element = (int64_t)t->plan->geometry.element, *stride = t->from->stride;
    const int64_t stored = (int64_t)t->movers->element;
    const char *base =
        t->from->data + (t->sample * stride[0] + t->group * c->k * stride[1]) * stored;
    for (int64_t d = 0; d < t->listed[0]; d++) {
        for (int64_t h = from, rows; h < end; h += rows) {
            const int64_t joined = joined_rows(t, h, end);
            rows = joined > 1 ? joined : rows_in_order(t, h, end);
            for (int64_t k = 0; k < t->groups * c->k; k += CHANNELS) {
                const patch p = {
                    t->slab + convt3d_correlate_slab_at(t, d, h, h, k) * element,
                    base + (t->list[0][d] * stride[2] + t->list[1][h] * stride[3] + k * stride[1]) *
                               stored,
                    min64(CHANNELS, t->groups * c->k - k), rows};
                if (convt3d_stopped(&t->call->job, t->thread)) return 0;
                if (joined > 1)
                    gather_joined(t, &p);
                else
                    gather_patch(t, &p);
                if (t->terms) convt3d_correlate_split(t, d, h, rows, k, p.channels);
            }
        }
    }
    return 1;
}

/* ---- Ahead of time ------------------------------------------------------------------ */

void convt3d_correlate_ask(const convt3d_task *t, int64_t from, int64_t end) {
    const int64_t stored = (int64_t)t->movers->element, *stride = t->from->stride;
    const int64_t channels = t->groups * t->c->k;
    convt3d_asks *asks = t->asks;
    const char *base =
        t->from->data + (t->sample * stride[0] + t->group * t->c->k * stride[1]) * stored;
    convt3d_asks_clear(asks, t->from->size[4] * stored);
    for (int64_t d = 0; d < t->listed[0]; d++) {
        for (int64_t k = 0; k < channels; k++) {
            for (int64_t h = from; h < end; h++)
                asks->row[asks->count++] =
                    base + (t->list[0][d] * stride[2] + k * stride[1] + t->list[1][h] * stride[3]) *
                               stored;
        }
    }
    convt3d_asks_ready(asks);
}
