/* geometry: which inputs and taps meet in which outputs, on one axis.
 *
 * u counts the positions of the full result: u = i*stride + k*dilation.  The
 * padding mode folds u onto an output index o (or crops it).  Everything that
 * the drivers know about stride, dilation and padding comes from here.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_GEOMETRY_H
#define CONVT3D_GEOMETRY_H

#include "problem.h"

/* The output index that position u counts towards; -1 if it is cropped.  The
 * same map read backwards pads grad_output: padded[u] = grad_output[fold(u)]. */
int64_t convt3d_fold(const convt3d_axis *axis, int64_t u);

/* All (k, i) that meet in output o, in an order that depends on nothing else:
 *
 *     convt3d_meet meet = convt3d_meet_first(axis, o);
 *     while (convt3d_meet_next(&meet)) use(meet.k, meet.i);
 */
typedef struct convt3d_meet {
    const convt3d_axis *axis;
    int64_t k, i;
    int64_t end;               /* of the inputs that tap k takes into this range */
    int64_t first[3], last[3]; /* the positions u that fold onto o */
    int ranges, range;
} convt3d_meet;

convt3d_meet convt3d_meet_first(const convt3d_axis *axis, int64_t o);
int convt3d_meet_next(convt3d_meet *meet);

/* The greatest number of distinct inputs i that any 'count' consecutive outputs, the first a
 * multiple of 'count', can need, and of outputs o that 'count' consecutive inputs reach. */
int64_t convt3d_inputs_of_outputs(const convt3d_axis *axis, int64_t count);
int64_t convt3d_outputs_of_inputs(const convt3d_axis *axis, int64_t count);

/* A piece of a row: 'count' elements read from index 'from' in steps of 'step'
 * (0: one element again and again; negative: backwards), to index 'to' on. */
typedef struct convt3d_span {
    int64_t from, step, count, to;
} convt3d_span;

/* The padded grad_output row as seen by one stride phase: element q holds
 * padded[q*stride + phase] for q in [q0, q1); writes up to three spans whose
 * 'to' counts from q0 and returns how many.  Elements that no span covers are
 * zeros. */
int convt3d_phase_spans(const convt3d_axis *axis, int64_t phase, int64_t q0, int64_t q1,
                        convt3d_span spans[3]);

/* How a full row u in [0, full) folds onto the outputs: the kept part first,
 * then up to two borders.  'from' is u, 'to' is o, and here 'step' is that of
 * 'to' (0: all onto one output), since u always runs upwards. */
int convt3d_fold_spans(const convt3d_axis *axis, convt3d_span spans[3]);

/* Taps this far apart share a stride phase: stride / gcd(stride, dilation). */
int64_t convt3d_tap_period(const convt3d_axis *axis);

/* ceil(a / b) for b > 0 and any a. */
int64_t convt3d_ceil_div(int64_t a, int64_t b);

static inline int64_t min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

#endif
