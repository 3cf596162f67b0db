/* row: what the drivers know of one row: its taps along the width, and the list
 * of source rows that a task needs.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_ROW_H
#define CONVT3D_ROW_H

#include "geometry.h"

#include <stddef.h>

/* A tap on the width axis, as seen by positions q counted from q0: it reads
 * packed element offset + q - q0, which is real data (no halo) for q in
 * [real0, real1). */
typedef struct convt3d_tap {
    int64_t k, offset, real0, real1;
} convt3d_tap;

/* How both gradients see a grad_output row: the padded row of each stride phase,
 * one after another, so that input position i (from 0) meets tap k at element
 * offset + i.  Writes 'kernel' taps, last tap first (their limits rise then), and
 * the spans that fill the packed row, in order of 'to', at most three a tap.
 * Returns the packed row's length; elements that no span covers are halo. */
int64_t convt3d_phase_row(const convt3d_axis *axis, convt3d_tap *taps, convt3d_span *spans,
                          int64_t *count);

/* Two spans that are the even and the odd elements of one stretch, which can be taken in one
 * go: the one that starts it; NULL: they aren't. */
static inline const convt3d_span *convt3d_spans_first(const convt3d_span *a,
                                                      const convt3d_span *b) {
    if (a->step != 2 || b->step != 2 || !a->count || !b->count) return NULL;
    return b->from == a->from + 1 ? a : a->from == b->from + 1 ? b : NULL;
}

/* The place of a row in a rising list (or where it belongs), by bisection. */
int64_t convt3d_list_place(const int64_t *list, int64_t count, int64_t row);

/* Whether a rising list has a row. */
int convt3d_list_has(const int64_t *list, int64_t count, int64_t row);

/* Puts a row into a rising list if it isn't there; returns the new count. */
int64_t convt3d_list_add(int64_t *list, int64_t count, int64_t row);

#endif
