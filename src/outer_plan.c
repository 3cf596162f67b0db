/* outer_plan: sides, chunks, blocks and scratch of backward_weight.
 * SPDX-License-Identifier: MIT */
#include "outer.h"
#include "error.h"
#include "tiles.h"

#include <stdlib.h>
#include <string.h>

/* Tiles' worth of work for one position and tap, with 'a' channels on side A. */
static double tile_work(const convt3d_type_kernels *type, int64_t a, int64_t b) {
    return (double)a * (double)convt3d_ceil_div(b, type->lanes);
}

static void choose_sides(const convt3d_plan *plan, convt3d_outer *c) {
    const convt3d_type_kernels *type = plan->type;
    int64_t xc = c->x.channels, dyc = c->dy.channels;
    c->x_is_a = tile_work(type, xc, dyc) <= tile_work(type, dyc, xc);
    int64_t a = c->x_is_a ? xc : dyc, b = c->x_is_a ? dyc : xc;
    const convt3d_tiles tiles =
        convt3d_tiles_choose(type, a, convt3d_ceil_div(b, type->lanes), 0, 0);
    c->rows = tiles.rows;
    c->vectors = tiles.vectors;
    c->a_blocks = convt3d_ceil_div(a, c->rows);
    c->b_length = convt3d_ceil_div(b, type->lanes) * type->lanes;
}

/* At most 16 chunks, and together at most 8 MiB of sums: heavy weights get one,
 * and are split by channels instead. */
static void choose_chunks(const convt3d_plan *plan, convt3d_outer *c) {
    const int64_t budget = 8 << 20, groups = plan->geometry.groups;
    int64_t fit = budget / (int64_t)c->sums_bytes;
    c->chunks = max64(1, min64(min64(16, c->planes), fit));
    int64_t tasks = groups * c->chunks;
    c->a_splits = tasks < 2 * plan->threads
                      ? min64(c->a_blocks, convt3d_ceil_div(2 * plan->threads, tasks))
                      : 1;
}

static int64_t packed_channels(const convt3d_outer *c, int is_a) {
    return is_a ? convt3d_ceil_div(c->a_blocks, c->a_splits) * c->rows : c->b_length;
}

static double block_bytes(const convt3d_plan *plan, const convt3d_outer *c) {
    double x = (double)c->x.list_rows[0] * (double)c->x.list_rows[1] * (double)c->x.positions *
               (double)packed_channels(c, c->x_is_a);
    double dy = (double)c->dy.list_rows[0] * (double)c->dy.list_rows[1] * (double)c->dy.positions *
                (double)packed_channels(c, !c->x_is_a);
    return (x + dy) * (double)plan->geometry.element;
}

/* Halves the block until its packed rows fit a core's cache. */
static void choose_block(const convt3d_plan *plan, convt3d_outer *c) {
    const double cache = 1024 * 1024;
    const convt3d_axis *axis = plan->geometry.axis;
    c->block[0] = min64(axis[0].in, convt3d_ceil_div(max64(c->planes, 1), c->chunks));
    c->block[1] = axis[1].in;
    for (;;) {
        for (int a = 0; a < 2; a++) {
            c->x.list_rows[a] = c->block[a];
            c->dy.list_rows[a] = convt3d_outputs_of_inputs(&axis[a], c->block[a]);
        }
        int a = c->block[0] > 1 ? 0 : 1;
        if (block_bytes(plan, c) <= cache || c->block[a] == 1) return;
        c->block[a] = (c->block[a] + 1) / 2;
    }
}

static int grow_rows(size_t *total, const convt3d_plan *plan, const convt3d_outer *c,
                     const convt3d_side *side, int is_a) {
    const int64_t sizes[4] = {side->list_rows[0], side->list_rows[1], side->positions,
                              packed_channels(c, is_a)};
    size_t bytes;
    return convt3d_bytes(sizes, 4, plan->geometry.element, &bytes) && convt3d_grow(total, 1, bytes);
}

/* A thread's scratch: x rows, dy rows, segments, a line of taps, row lists. */
static int size_scratch(const convt3d_plan *plan, convt3d_outer *c) {
    size_t total = 0, line = (size_t)c->taps;
    if (!grow_rows(&total, plan, c, &c->x, c->x_is_a)) return 0;
    c->at_dy = total = convt3d_round_up(total);
    if (!grow_rows(&total, plan, c, &c->dy, !c->x_is_a)) return 0;
    c->at_segments = total = convt3d_round_up(total);
    if (!convt3d_grow(&total, CONVT3D_OUTER_SEGMENTS, sizeof(convt3d_segment))) return 0;
    c->at_line = total = convt3d_round_up(total);
    /* and what the mover may read beyond it */
    if (!convt3d_grow(&total, line + (size_t)plan->type->lanes, plan->geometry.element)) return 0;
    for (int a = 0; a < 2; a++) {
        c->at_list[a] = total = convt3d_round_up(total);
        if (!convt3d_grow(&total, (size_t)c->dy.list_rows[a], sizeof(int64_t))) return 0;
    }
    c->thread_bytes = convt3d_round_up(total);
    c->bias_bytes = 0;
    return convt3d_grow(&c->bias_bytes, (size_t)plan->geometry.out_channels * CONVT3D_BIAS_PARTS,
                        sizeof(double)) &&
           (c->bias_bytes = convt3d_round_up(c->bias_bytes)) > 0;
}

/* One block for the struct and its tables: up to three spans a tap. */
static convt3d_outer *allocate(const convt3d_plan *plan, size_t *bytes) {
    size_t kernel = (size_t)plan->geometry.axis[2].kernel;
    *bytes = sizeof(convt3d_outer);
    if (!convt3d_grow(bytes, kernel, sizeof(convt3d_tap)) ||
        !convt3d_grow(bytes, 3 * kernel, sizeof(convt3d_span)))
        return NULL;
    convt3d_outer *c = malloc(*bytes);
    if (!c) return NULL;
    memset(c, 0, sizeof *c);
    c->tap = (convt3d_tap *)(c + 1);
    c->span = (convt3d_span *)(c->tap + kernel);
    return c;
}

convt3d_status convt3d_outer_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                     convt3d_error *err) {
    const convt3d_geometry *g = &plan->geometry;
    size_t bytes;
    convt3d_outer *c = allocate(plan, &bytes);
    if (!c) return convt3d_fail_nomem(err, "a plan's tables", bytes);
    plan->details = c;
    c->x.channels = g->group_inputs;
    c->dy.channels = g->group_outputs;
    c->x.positions = g->axis[2].in;
    c->dy.positions = convt3d_phase_row(&g->axis[2], c->tap, c->span, &c->spans);
    c->taps = g->axis[0].kernel * g->axis[1].kernel * g->axis[2].kernel;
    c->planes = g->batch * g->axis[0].in;
    choose_sides(plan, c);
    const int64_t sums[5] = {g->groups, c->a_blocks, c->taps, c->rows, c->b_length};
    if (convt3d_bytes(sums, 5, g->element, &c->sums_bytes)) {
        c->sums_bytes = convt3d_round_up(c->sums_bytes);
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
    convt3d_text_add(text, "tile: %lld channels of %s by up to %d vectors of %d channels of %s\n",
                     (long long)c->rows, c->x_is_a ? "input" : "grad_output", (int)c->vectors,
                     plan->type->lanes, c->x_is_a ? "grad_output" : "input");
    convt3d_text_add(text,
                     "reduction: %lld chunk%s of %lld planes, added in order; %lld x %lld rows "
                     "packed at a time%s\n",
                     (long long)c->chunks, c->chunks == 1 ? "" : "s",
                     (long long)convt3d_ceil_div(c->planes, c->chunks), (long long)c->block[0],
                     (long long)c->block[1], c->a_splits > 1 ? "; split by channels" : "");
}
