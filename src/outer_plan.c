/* outer_plan: sides, chunks, blocks and scratch of backward_weight.
 * SPDX-License-Identifier: MIT */
#include "outer.h"
#include "error.h"
#include "tiles.h"

#include <stdlib.h>
#include <string.h>

/* ---- Rows ------------------------------------------------------------------------ */

/* A grad_output row as it is, padded where the mode says so; x position i meets tap k at
 * element offset + i*stride. */
static void prepare_row(const convt3d_axis *axis, convt3d_outer *c) {
    int crops = axis->mode == CONVT3D_ZEROS;
    convt3d_axis full = *axis;
    full.stride = 1;
    c->dy.positions = crops ? axis->out : axis->full;
    c->dy.step = axis->stride;
    c->spans = 1;
    c->span[0] = (convt3d_span){0, 1, axis->out, 0};
    if (!crops) c->spans = convt3d_phase_spans(&full, 0, 0, axis->full, c->span);
    for (int64_t k = 0; k < axis->kernel; k++) {
        const int64_t reach = k * axis->dilation, from = axis->before - reach;
        c->tap[k] = (convt3d_tap){.k = k, .offset = reach, .real1 = axis->in};
        if (!crops) continue;
        c->tap[k].offset = -from;
        c->tap[k].real0 = convt3d_ceil_div(from, axis->stride);
        c->tap[k].real1 = convt3d_ceil_div(from + axis->out, axis->stride);
    }
}

/* The same parted by phase, in the order of k; returns the row's positions. */
static int64_t phases(const convt3d_axis *axis, convt3d_tap *taps, convt3d_span *spans,
                      int64_t *count) {
    const int64_t positions = convt3d_phase_row(axis, taps, spans, count);
    for (int64_t k = 0; k < axis->kernel / 2; k++) {
        const convt3d_tap tap = taps[k];
        taps[k] = taps[axis->kernel - 1 - k];
        taps[axis->kernel - 1 - k] = tap;
    }
    return positions;
}

static void prepare_phases(const convt3d_axis *axis, convt3d_outer *c) {
    c->dy.positions = phases(axis, c->tap, c->span, &c->spans);
    c->dy.step = 1;
}

/* ---- Sides ------------------------------------------------------------------------ */

/* Cycles for one position of x, and the tiles they are the best of. */
typedef struct choice {
    int x_is_a;
    int64_t tap_rows;
    convt3d_tiles tiles;
    double cycles;
} choice;

static choice choose_rows(const convt3d_plan *plan, const convt3d_outer *c, int x_is_a,
                          int tap_rows) {
    const convt3d_geometry *g = &plan->geometry;
    const int64_t a = x_is_a ? c->x.channels : c->dy.channels;
    const int64_t b = x_is_a ? c->dy.channels : c->x.channels;
    const int64_t vectors = convt3d_ceil_div(b, plan->type->lanes), kernel_w = g->axis[2].kernel;
    /* Packing across takes some cycles an element, packing along a part of one. */
    const double across = 2, along = 0.25;
    double dy = (double)c->dy.channels, x = (double)c->x.channels;
    choice result = {.x_is_a = x_is_a};
    for (int i = 0; i < 3; i++) dy *= (double)g->axis[i].out / (double)max64(g->axis[i].in, 1);
    result.tiles = convt3d_tiles_choose(plan->type, tap_rows ? kernel_w : a, vectors, 0, 0);
    result.tap_rows = tap_rows ? result.tiles.rows : 0;
    result.cycles = result.tiles.cycles * (double)c->taps;
    if (tap_rows) result.cycles *= (double)a / (double)kernel_w;
    result.cycles += x_is_a ? across * dy + along * x : across * x + along * dy;
    return result;
}

static void choose_sides(const convt3d_plan *plan, convt3d_outer *c) {
    const convt3d_geometry *g = &plan->geometry;
    const int64_t thin = 4; /* pairs of channels of a group, for dots */
    choice best = choose_rows(plan, c, 0, 0), other = choose_rows(plan, c, 0, 1);
    if (other.cycles < best.cycles) best = other;
    other = choose_rows(plan, c, 1, 0);
    if (other.cycles < best.cycles) best = other;
    c->dots = c->x.channels <= thin && c->dy.channels <= thin / max64(c->x.channels, 1);
    c->x_is_a = best.x_is_a && !c->dots;
    c->tap_rows = best.tap_rows;
    c->rows = c->tap_rows ? 1 : best.tiles.rows;
    c->vectors = best.tiles.vectors;
    if (!c->dots) convt3d_outer_choose_terms(plan, c, best.cycles);
    const int64_t a = c->x_is_a ? c->x.channels : c->dy.channels;
    const int64_t b = c->x_is_a ? c->dy.channels : c->x.channels, lanes = plan->type->lanes;
    c->a_blocks = convt3d_ceil_div(a, c->rows);
    c->b_length = convt3d_ceil_div(b, lanes) * lanes;
    c->blocks = c->dots ? a * b : c->a_blocks;
    /* Fewer where many taps reach many rows: blocks should have some of their own, too. */
    const int64_t reach = max64(1, g->axis[0].kernel * g->axis[1].kernel / 9);
    c->groups = c->dots ? min64(g->groups, max64(1, 4 * thin / max64(a, b) / reach)) : 1;
    c->group_blocks = convt3d_ceil_div(g->groups, c->groups);
}

/* Whether every grad_output position of an axis is met by an input position, and once only
 * in each packed row. */
static int meets_all(const convt3d_axis *axis) {
    return axis->mode == CONVT3D_ZEROS && axis->dilation == 1 && axis->kernel >= axis->stride &&
           axis->before + axis->out <= (axis->in - 1) * axis->stride + axis->kernel;
}

/* ---- Tasks ------------------------------------------------------------------------ */

/* At most 16 chunks, and together at most 8 MiB of sums: heavy weights get one,
 * are split by channels instead, and each task writes what it has summed up. */
static void choose_chunks(const convt3d_plan *plan, convt3d_outer *c) {
    const int64_t budget = 8 << 20, own = 6 << 20, threads = plan->threads;
    const double positions = 512; /* fewer aren't worth the sums of one more chunk */
    const convt3d_axis *axis = plan->geometry.axis;
    const double all = (double)c->planes * (double)axis[1].in * (double)axis[2].in;
    int64_t fit = budget / (int64_t)c->sums_bytes;
    if (!c->dots && all / positions < (double)fit) fit = (int64_t)(all / positions);
    c->chunks = max64(1, min64(min64(16, c->planes), fit));
    c->a_splits = c->least_splits = 1;
    if (c->dots) return;
    const int64_t tasks = c->group_blocks * c->chunks;
    if (tasks < 2 * threads) c->a_splits = convt3d_ceil_div(2 * threads, tasks);
    if (c->chunks == 1) {
        const int64_t bytes = (int64_t)c->sums_bytes / c->group_blocks;
        c->least_splits = min64(convt3d_ceil_div(bytes, own), c->blocks);
        c->a_splits = max64(c->a_splits, c->least_splits);
        c->a_splits = convt3d_ceil_div(c->a_splits, threads) * threads;
    }
    c->a_splits = min64(c->a_splits, c->blocks);
}

/* Bytes of a packed row, all channels of a task, whatever the threads. */
static double row_bytes(const convt3d_plan *plan, const convt3d_outer *c,
                        const convt3d_side *side) {
    const int is_a = (side == &c->x) == (c->x_is_a != 0);
    const int64_t blocks = convt3d_ceil_div(c->a_blocks, c->least_splits), own = blocks * c->rows;
    const double line = CONVT3D_TERM_LINE;
    if (c->terms) return line * (double)(is_a ? blocks * c->x_lines : c->dy_lines);
    const int64_t channels = c->dots ? c->groups * side->channels : (is_a ? own : c->b_length);
    return (double)side->positions * (double)channels * (double)plan->geometry.element;
}

/* The dy planes that 'planes' planes of x may meet, which may be of several samples. */
static int64_t dy_planes(const convt3d_axis *axis, int64_t planes) {
    const int64_t samples = (planes + axis->in - 2) / axis->in + 1;
    const int64_t one = convt3d_outputs_of_inputs(axis, min64(planes, axis->in));
    const int64_t each = min64(axis->kernel, axis->out);
    return planes > INT64_MAX / each ? samples * one : min64(samples * one, planes * each);
}

/* Whether there is room in a core's cache for the rows that come next: not beside many sums.
 * Only grad_output is asked for, which has more than its share with strides. */
static int has_room(const convt3d_plan *plan, const convt3d_outer *c) {
    const convt3d_axis *axis = plan->geometry.axis;
    return !c->dots && !c->terms && axis[0].mode == CONVT3D_ZEROS &&
           axis[1].mode == CONVT3D_ZEROS && (axis[0].stride > 1 || axis[1].stride > 1) &&
           c->sums_bytes / (size_t)plan->geometry.groups <= 256 * 1024;
}

/* As many x rows as fit a core's cache with what they meet, in the shape that packs
 * the fewest dy rows again and again.  It is part of the order of additions, so that it
 * may not depend on threads. */
static void choose_block(const convt3d_plan *plan, convt3d_outer *c) {
    const double plain = c->asks ? 512 * 1024 : 896 * 1024; /* with what comes next */
    const double cache = c->terms ? 1536 * 1024 : plain;
    const convt3d_axis *axis = plan->geometry.axis;
    const int64_t planes = convt3d_ceil_div(max64(c->planes, 1), c->chunks);
    double best = 0;
    c->block[0] = c->block[1] = 1;
    for (int64_t p = 1; p <= CONVT3D_OUTER_ROWS; p *= 2) {
        for (int64_t h = 1; p * h <= CONVT3D_OUTER_ROWS; h *= 2) {
            const int64_t block[2] = {min64(p, planes), min64(h, max64(axis[1].in, 1))};
            const double rows = (double)block[0] * (double)block[1];
            const double bytes = rows * row_bytes(plan, c, &c->x) +
                                 (double)dy_planes(&axis[0], block[0]) *
                                     (double)convt3d_outputs_of_inputs(&axis[1], block[1]) *
                                     row_bytes(plan, c, &c->dy);
            /* Rows a byte, and a little for each block there is. */
            const double score = rows / (bytes + 16 * 1024);
            if (bytes > cache || score <= best) continue;
            best = score;
            c->block[0] = block[0];
            c->block[1] = block[1];
        }
    }
    c->dy_rows[0] = dy_planes(&axis[0], c->block[0]);
    c->dy_rows[1] = convt3d_outputs_of_inputs(&axis[1], c->block[1]);
    c->x.rows = c->block[0] * c->block[1];
}

/* ---- Scratch ------------------------------------------------------------------------ */

static int grow_rows(size_t *total, const convt3d_plan *plan, const convt3d_outer *c,
                     const convt3d_side *side, const int64_t rows[2]) {
    const int is_a = (side == &c->x) == (c->x_is_a != 0);
    int64_t channels = c->b_length;
    if (c->dots)
        channels = c->groups * side->channels;
    else if (is_a)
        channels = convt3d_ceil_div(c->a_blocks, c->a_splits) * c->rows;
    const int64_t sizes[4] = {rows[0], rows[1], side->positions, channels};
    size_t bytes;
    if (!convt3d_bytes(sizes, 4, plan->geometry.element, &bytes) || !convt3d_grow(total, 1, bytes))
        return 0;
    *total = convt3d_round_up(*total);
    return 1;
}

/* Lines of both sides, and a row to be split. */
static int grow_terms(size_t *total, convt3d_outer *c) {
    if (!c->terms) return 1;
    const int64_t x[4] = {c->block[0], c->block[1], convt3d_ceil_div(c->a_blocks, c->a_splits),
                          c->x_lines};
    const int64_t dy[3] = {c->dy_rows[0], c->dy_rows[1], c->dy_lines};
    const int64_t stage[2] = {CONVT3D_TERM_BLOCK,
                              max64(c->x.positions, c->phase_positions) + CONVT3D_TERM_BLOCK};
    size_t bytes;
    c->at_term_x = *total;
    if (!convt3d_bytes(x, 4, CONVT3D_TERM_LINE, &bytes) || !convt3d_grow(total, 1, bytes)) return 0;
    c->at_term_dy = *total;
    if (!convt3d_bytes(dy, 3, CONVT3D_TERM_LINE, &bytes) || !convt3d_grow(total, 1, bytes))
        return 0;
    c->at_stage = *total;
    if (!convt3d_bytes(stage, 2, sizeof(float), &bytes) || !convt3d_grow(total, 1, bytes)) return 0;
    *total = convt3d_round_up(*total);
    return 1;
}

/* A thread's scratch: x rows, dy rows, segments, some lines of taps and what a mover may
 * read beyond them, row lists and what meets what, sums that nobody else adds to. */
static int size_scratch(const convt3d_plan *plan, convt3d_outer *c) {
    const size_t element = plan->geometry.element;
    const convt3d_axis *axis = plan->geometry.axis;
    const int64_t asks[4] = {c->dy_rows[0], c->dy_rows[1], c->dy.channels, 1};
    size_t total = 0, bytes;
    if (!grow_rows(&total, plan, c, &c->x, c->block)) return 0;
    c->at_dy = total;
    if (!grow_rows(&total, plan, c, &c->dy, c->dy_rows)) return 0;
    if (!grow_terms(&total, c)) return 0;
    c->at_asks = total;
    if (c->asks &&
        (!convt3d_grow(&total, 1, sizeof(convt3d_asks)) ||
         !convt3d_bytes(asks, 4, sizeof(char *), &bytes) || !convt3d_grow(&total, 1, bytes)))
        return 0;
    c->at_segments = total = convt3d_round_up(total);
    if (!convt3d_grow(&total, CONVT3D_OUTER_ROWS, sizeof(convt3d_segment))) return 0;
    c->at_line = total = convt3d_round_up(total);
    if (!convt3d_grow(&total, (size_t)c->taps + 1, (size_t)plan->type->lanes * element)) return 0;
    c->at_tables = total = convt3d_round_up(total);
    for (int a = 0; a < 2; a++) {
        if (!convt3d_grow(&total, (size_t)c->dy_rows[a], sizeof(int64_t)) ||
            !convt3d_grow(&total, (size_t)c->block[a] * (size_t)axis[a].kernel, sizeof(int64_t)))
            return 0;
    }
    c->at_sums = total = convt3d_round_up(total);
    if (c->chunks == 1 &&
        !convt3d_grow(&total, (size_t)(c->groups * convt3d_ceil_div(c->blocks, c->a_splits)),
                      (size_t)c->block_sums * element))
        return 0;
    c->thread_bytes = convt3d_round_up(total);
    c->bias_bytes = 0;
    return convt3d_grow(&c->bias_bytes, (size_t)plan->geometry.out_channels * CONVT3D_BIAS_PARTS,
                        sizeof(double)) &&
           (c->bias_bytes = convt3d_round_up(c->bias_bytes)) > 0;
}

/* ---- The whole ---------------------------------------------------------------------- */

/* One block for the struct and its tables, as they are and by phase: up to three spans a tap. */
static convt3d_outer *allocate(const convt3d_plan *plan, size_t *bytes) {
    size_t kernel = (size_t)plan->geometry.axis[2].kernel;
    *bytes = sizeof(convt3d_outer);
    if (!convt3d_grow(bytes, 2 * kernel, sizeof(convt3d_tap)) ||
        !convt3d_grow(bytes, 6 * kernel, sizeof(convt3d_span)))
        return NULL;
    convt3d_outer *c = malloc(*bytes);
    if (!c) return NULL;
    memset(c, 0, sizeof *c);
    c->tap = (convt3d_tap *)(c + 1);
    c->phase_tap = c->tap + kernel;
    c->span = (convt3d_span *)(c->phase_tap + kernel);
    c->phase_span = c->span + 3 * kernel;
    return c;
}

convt3d_status convt3d_outer_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                     convt3d_error *err) {
    const convt3d_geometry *g = &plan->geometry;
    size_t bytes;
    convt3d_outer *c = allocate(plan, &bytes);
    if (!c) return convt3d_fail_nomem(err, "a plan's tables", bytes);
    plan->details = c;
    c->x = (convt3d_side){.channels = g->group_inputs, .positions = g->axis[2].in, .step = 1};
    c->dy.channels = g->group_outputs;
    c->taps = g->axis[0].kernel * g->axis[1].kernel * g->axis[2].kernel;
    c->planes = g->batch * g->axis[0].in;
    c->phase_positions = phases(&g->axis[2], c->phase_tap, c->phase_span, &c->phase_spans);
    choose_sides(plan, c);
    if (c->dots)
        prepare_phases(&g->axis[2], c);
    else
        prepare_row(&g->axis[2], c);
    c->sums_bias =
        !c->x_is_a && meets_all(&g->axis[0]) && meets_all(&g->axis[1]) && meets_all(&g->axis[2]);
    const int64_t block[5] = {c->taps, c->dots ? 1 : c->rows,
                              c->dots ? plan->type->lanes : c->b_length, g->groups, c->blocks};
    if (convt3d_bytes(block, 5, g->element, &c->sums_bytes)) {
        c->block_sums = block[0] * block[1] * block[2];
        c->sums_bytes = convt3d_round_up(c->sums_bytes);
        c->asks = has_room(plan, c);
        choose_chunks(plan, c);
        choose_block(plan, c);
        if (size_scratch(plan, c)) {
            (void)why;
            *accepted = 1;
            return CONVT3D_OK;
        }
    }
    return convt3d_fail(err, CONVT3D_OVERFLOW,
                        "the scratch of a run would take more bytes than the address space has");
}

void convt3d_outer_describe(const convt3d_plan *plan, convt3d_text *text) {
    const convt3d_outer *c = plan->details;
    const char *a = c->x_is_a ? "input" : "grad_output", *b = c->x_is_a ? "grad_output" : "input";
    if (c->dots)
        convt3d_text_add(text, "tile: dot products of up to %d taps, vectors of %d positions\n",
                         CONVT3D_DOTS, plan->type->lanes);
    else
        convt3d_text_add(text, "tile: %lld %s of %s by up to %lld vectors of %d channels of %s\n",
                         (long long)(c->tap_rows ? c->tap_rows : c->rows),
                         c->tap_rows ? "taps" : "channels", a, (long long)c->vectors,
                         plan->type->lanes, b);
    convt3d_outer_describe_terms(plan, text);
    convt3d_text_add(text,
                     "reduction: %lld chunk%s of %lld planes, added in order; %lld x %lld rows "
                     "packed at a time%s\n",
                     (long long)c->chunks, c->chunks == 1 ? "" : "s",
                     (long long)convt3d_ceil_div(c->planes, c->chunks), (long long)c->block[0],
                     (long long)c->block[1], c->a_splits > 1 ? "; split by channels" : "");
}
