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
    if (p0 >= p1) return;
    for (int64_t r = 0; r < rows; r++)
        memset(to + r * t->cut->row_pitch * element + p0 * position, 0,
               (size_t)((p1 - p0) * position));
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

/* Span i and the one after it, where these are the even and the odd elements of one
 * stretch: both at once.  'to' and 'from' as of gather_rows(). */
static int gather_both(const convt3d_task *t, char *to, const char *from, int64_t channels,
                       int64_t i) {
    const int64_t element = (int64_t)t->plan->geometry.element, *stride = t->from->stride;
    if (i + 1 >= t->c->spans || stride[4] != 1 || t->run > 1) return 0;
    convt3d_span even = span_of(t, i), odd = span_of(t, i + 1);
    if (even.step != 2 || odd.step != 2 || !even.count || !odd.count) return 0;
    if (odd.from == even.from - 1) {
        const convt3d_span first = odd;
        odd = even;
        even = first;
    }
    if (odd.from != even.from + 1) return 0;
    const int64_t count[2] = {even.count, odd.count};
    t->type->part(to + even.to * element, to + odd.to * element, t->cut->row_pitch,
                  from + even.from * element, stride[1], channels, count);
    return 1;
}

/* Source row 'from' of 'channels' channels to as many slab rows. */
static void gather_rows(const convt3d_task *t, char *to, const char *from, int64_t channels) {
    const int64_t element = (int64_t)t->plan->geometry.element;
    const int64_t *stride = t->from->stride;
    int across = convt3d_correlate_across(t, t->from);
    clear_halo(t, to, channels);
    for (int64_t i = 0; i < t->c->spans; i++) {
        const convt3d_span span = span_of(t, i);
        const char *p = from + span.from * stride[4] * element;
        char *at = to + span.to * t->run * element;
        const int64_t step = span.step * stride[4];
        if (!span.count) continue;
        if (!across && gather_both(t, to, from, channels, i)) {
            i++;
            continue;
        }
        if (across) {
            t->type->transpose(at, t->cut->row_pitch, p, step, stride[1], span.count, span.count,
                               channels);
            continue;
        }
        if (t->run == 1) {
            t->type->gather(at, t->cut->row_pitch, p, stride[1], step, channels, span.count);
            continue;
        }
        for (int64_t k = 0; k < channels; k++) {
            t->type->transpose(at, t->run, p, stride[0], step, t->run, t->run, span.count);
            at += t->cut->row_pitch * element;
            p += stride[1] * element;
        }
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
           t->order[h + rows] == t->order[h] + rows)
        rows++;
    return rows;
}

/* The slab: [depth][height][channel][position][sample], or, for rows that are run as
 * one, [depth][channel][height][position]. */
int convt3d_correlate_gather(const convt3d_task *t, int64_t from, int64_t end) {
    enum {
        CHANNELS = 32 /* between two looks at the clock */
    };
    const convt3d_correlate *c = t->c;
    const int64_t element = (int64_t)t->plan->geometry.element, *stride = t->from->stride;
    const char *base =
        t->from->data + (t->sample * stride[0] + t->group * c->k * stride[1]) * element;
    for (int64_t d = 0; d < t->listed[0]; d++) {
        for (int64_t h = from, rows; h < end; h += rows) {
            const char *row =
                base + (t->list[0][d] * stride[2] + t->list[1][h] * stride[3]) * element;
            char *to = t->slab + (d * t->slab_step[0] + t->order[h] * t->slab_step[1]) * element;
            rows = joined_rows(t, h, end);
            for (int64_t k = 0; k < t->groups * c->k; k += CHANNELS) {
                int64_t channels = min64(CHANNELS, t->groups * c->k - k);
                if (convt3d_stopped(&t->call->job, t->thread)) return 0;
                if (rows == 1)
                    gather_rows(t, to, row + k * stride[1] * element, channels);
                else
                    t->type->gather(to, t->cut->row_pitch, row + k * stride[1] * element, stride[1],
                                    c->span[0].step * stride[4], channels,
                                    rows * t->cut->row_length);
                to += channels * t->cut->row_pitch * element;
            }
        }
    }
    return 1;
}
