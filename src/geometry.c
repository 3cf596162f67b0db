/* geometry: the index relation u = i*stride + k*dilation, and the folds.
 * SPDX-License-Identifier: MIT */
#include "geometry.h"

int64_t convt3d_floor_div(int64_t a, int64_t b) {
    return a / b - (a % b < 0);
}

int64_t convt3d_ceil_div(int64_t a, int64_t b) {
    return a / b + (a % b > 0);
}

int64_t convt3d_tap_period(const convt3d_axis *axis) {
    int64_t a = axis->stride, b = axis->dilation;
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return axis->stride / a;
}

int64_t convt3d_fold(const convt3d_axis *axis, int64_t u) {
    int64_t o = u - axis->before;
    if (o >= 0 && o < axis->out) return o;
    switch (axis->mode) {
    case CONVT3D_REFLECT:
        return o < 0 ? -o : 2 * (axis->out - 1) - o;
    case CONVT3D_REPLICATE:
        return o < 0 ? 0 : axis->out - 1;
    case CONVT3D_CIRCULAR:
        return o < 0 ? o + axis->out : o - axis->out;
    default:
        return -1;
    }
}

static void add_range(convt3d_meet *meet, int64_t first, int64_t last) {
    first = max64(first, 0);
    last = min64(last, meet->axis->full - 1);
    if (first <= last) {
        meet->first[meet->ranges] = first;
        meet->last[meet->ranges] = last;
        meet->ranges++;
    }
}

/* The kept position first, then what the left and the right border add. */
convt3d_meet convt3d_meet_first(const convt3d_axis *axis, int64_t o) {
    convt3d_meet meet = {.axis = axis, .k = -1};
    int64_t u = o + axis->before, end = axis->before + axis->out;
    add_range(&meet, u, u);
    switch (axis->mode) {
    case CONVT3D_REFLECT: /* the edge samples themselves have no image */
        if (o > 0) add_range(&meet, axis->before - o, axis->before - o);
        if (o < axis->out - 1) add_range(&meet, 2 * (end - 1) - u, 2 * (end - 1) - u);
        break;
    case CONVT3D_REPLICATE:
        if (o == 0) add_range(&meet, 0, axis->before - 1);
        if (o == axis->out - 1) add_range(&meet, end, axis->full - 1);
        break;
    case CONVT3D_CIRCULAR:
        add_range(&meet, u - axis->out, u - axis->out);
        add_range(&meet, u + axis->out, u + axis->out);
        break;
    default:
        break;
    }
    return meet;
}

/* Range by range, tap by tap, input by input: the work is that of what meets,
 * however wide a border is. */
int convt3d_meet_next(convt3d_meet *meet) {
    const convt3d_axis *axis = meet->axis;
    while (++meet->i >= meet->end) {
        if (++meet->k >= axis->kernel) {
            meet->k = 0;
            meet->range++;
        }
        if (meet->range >= meet->ranges) return 0;
        int64_t reach = meet->k * axis->dilation, range = meet->range;
        meet->i = max64(0, convt3d_ceil_div(meet->first[range] - reach, axis->stride)) - 1;
        meet->end = min64(axis->in, convt3d_ceil_div(meet->last[range] - reach + 1, axis->stride));
    }
    return 1;
}

/* Positions u that fold onto 'count' consecutive outputs, from a multiple of 'count' on, form up to
 * three runs of at most 'count' (REPLICATE: of its padding, too) each. */
int64_t convt3d_inputs_of_outputs(const convt3d_axis *axis, int64_t count) {
    int64_t reach = (axis->kernel - 1) * axis->dilation; /* < full, so it fits */
    int64_t runs = axis->mode == CONVT3D_ZEROS ? 1 : 3, total = 0;
    if (runs == 1 && count % axis->stride == 0 && count <= axis->full) {
        const int64_t u = axis->before % axis->stride; /* the first, but for whole strides */
        const int64_t before = (reach - u + axis->stride) / axis->stride - 1; /* rounded down */
        return min64((u + count - 1) / axis->stride + before + 1, axis->in);
    }
    for (int64_t run = 0; run < runs; run++) {
        int64_t length = min64(count, axis->full);
        if (axis->mode == CONVT3D_REPLICATE && run > 0)
            length = max64(length, run == 1 ? axis->before : axis->after);
        /* The inputs that reach 'length' positions lie within length - 1 + reach. */
        int64_t extent = reach + min64(length - 1, axis->full - reach);
        total += min64(extent / axis->stride, axis->in - 1) + 1;
    }
    return min64(total, axis->in);
}

int64_t convt3d_outputs_of_inputs(const convt3d_axis *axis, int64_t count) {
    /* All lie within one interval of u, and there are 'kernel' for each input. */
    int64_t interval =
        (min64(count, axis->in) - 1) * axis->stride + (axis->kernel - 1) * axis->dilation + 1;
    if (count <= interval / axis->kernel) interval = count * axis->kernel;
    return min64(interval, axis->out);
}

/* The q with a <= q*stride + phase < b, within [q0, q1). */
static void clip_phase(const convt3d_axis *axis, int64_t phase, int64_t a, int64_t b, int64_t q0,
                       int64_t q1, int64_t *first, int64_t *end) {
    *first = max64(q0, convt3d_ceil_div(a - phase, axis->stride));
    *end = min64(q1, convt3d_ceil_div(b - phase, axis->stride));
}

int convt3d_phase_spans(const convt3d_axis *axis, int64_t phase, int64_t q0, int64_t q1,
                        convt3d_span spans[3]) {
    int64_t edges[4] = {0, axis->before, axis->before + axis->out, axis->full};
    int64_t step[3] = {axis->stride, axis->stride, axis->stride};
    int count = 0;
    if (axis->mode == CONVT3D_ZEROS) edges[0] = edges[1], edges[3] = edges[2];
    if (axis->mode == CONVT3D_REFLECT) step[0] = step[2] = -axis->stride;
    if (axis->mode == CONVT3D_REPLICATE) step[0] = step[2] = 0;
    for (int part = 0; part < 3; part++) {
        int64_t first, end;
        clip_phase(axis, phase, edges[part], edges[part + 1], q0, q1, &first, &end);
        if (first >= end) continue;
        spans[count].from = convt3d_fold(axis, first * axis->stride + phase);
        spans[count].step = step[part];
        spans[count].count = end - first;
        spans[count].to = first - q0;
        count++;
    }
    return count;
}

int convt3d_fold_spans(const convt3d_axis *axis, convt3d_span spans[3]) {
    static const int64_t steps[4] = {0, -1, 0, 1}; /* by padding mode; ZEROS has no borders */
    const int64_t edges[2][2] = {{0, axis->before}, {axis->before + axis->out, axis->full}};
    int count = 1;
    spans[0] = (convt3d_span){axis->before, 1, axis->out, 0};
    for (int part = 0; part < 2 && axis->mode != CONVT3D_ZEROS; part++) {
        int64_t first = edges[part][0], end = edges[part][1];
        if (first < end)
            spans[count++] =
                (convt3d_span){first, steps[axis->mode], end - first, convt3d_fold(axis, first)};
    }
    return count;
}
