/* correlate_multiply: a program's steps, run for some units, tile by tile.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "tiles.h"

/* ---- Units ----------------------------------------------------------------------------- */

convt3d_unit convt3d_correlate_unit(const convt3d_task *t, int64_t index) {
    const convt3d_correlate *c = t->c;
    const convt3d_cut *cut = t->cut;
    convt3d_unit u = {.group = index / cut->units, .panel = index % cut->units / cut->in_panel};
    u.column = index % cut->units % cut->in_panel * cut->width;
    u.m0 = u.panel * c->panel + u.column;
    u.m1 = min64(u.m0 + cut->width, min64((u.panel + 1) * c->panel, c->m));
    return u;
}

/* A unit's first channel, and the one after its last, counted over all groups of the
 * task. */
static int64_t first_channel(const convt3d_task *t, const convt3d_unit *u) {
    return u->group * t->c->m + u->m0;
}

static int64_t end_channel(const convt3d_task *t, const convt3d_unit *u) {
    return u->group * t->c->m + u->m1;
}

void convt3d_correlate_channels(const convt3d_task *t, int64_t unit0, int64_t unit1, int64_t *m0,
                                int64_t *m1) {
    const convt3d_unit first = convt3d_correlate_unit(t, unit0),
                       last = convt3d_correlate_unit(t, unit1 - 1);
    *m0 = first_channel(t, &first);
    *m1 = end_channel(t, &last);
}

static const char *weights_of(const convt3d_task *t, const convt3d_unit *u) {
    const convt3d_correlate *c = t->c;
    const int64_t panel = (t->group + u->group) * c->panels + u->panel;
    return (const char *)t->call->packed + CONVT3D_ALIGN +
           (panel * c->taps * c->k * c->panel + u->column) * (int64_t)t->plan->geometry.element;
}

/* ---- Multiplying --------------------------------------------------------------------- */

/* A tile of one group, and of the groups after it. */
static void run_times(const convt3d_task *t, convt3d_gemm *gemm, convt3d_tile tile, int64_t times) {
    const convt3d_correlate *c = t->c;
    const int64_t element = (int64_t)t->plan->geometry.element;
    gemm(&tile);
    for (int64_t i = 1; i < times; i++) {
        tile.a = (const char *)tile.a + c->panels * c->taps * c->k * c->panel * element;
        tile.b = (const char *)tile.b + c->k * t->cut->row_pitch * element;
        tile.c = (char *)tile.c + c->m * t->cut->tile_pitch * element;
        gemm(&tile);
    }
}

/* Vectors along positions: rows are channels, the tile's a_row and c_row apart. */
static void multiply_straight(const convt3d_task *t, int64_t rows, convt3d_tile tile, int64_t count,
                              int64_t times) {
    const int64_t element = (int64_t)t->plan->geometry.element, lanes = t->type->lanes;
    const int64_t vectors = convt3d_ceil_div(count, lanes);
    const int64_t tiles = convt3d_ceil_div(vectors, t->cut->vectors);
    const char *b = tile.b;
    char *c = tile.c;
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t start = convt3d_part_start(vectors, tiles, i);
        const int64_t width = convt3d_part_start(vectors, tiles, i + 1) - start;
        if (i % 64 == 63 && convt3d_stopped(&t->call->job, t->thread)) return;
        tile.b = b + start * lanes * element;
        tile.c = c + start * lanes * element;
        convt3d_asks_take(t->asks, &tile);
        run_times(t,
                  tile.a_row == 1 ? t->type->gemm[rows - 1][width - 1]
                                  : t->type->gemm_apart[rows - 1][width - 1],
                  tile, times);
    }
}

/* Whether channels m to m + merged[2], the phases of one width, have a share in a step. */
static int has_share(const convt3d_correlate *c, int few, int64_t m) {
    int64_t phase[3];
    convt3d_correlate_channel(c, m, phase);
    return (!(few & 1) || phase[0] < c->last[0]) && (!(few & 2) || phase[1] < c->last[1]);
}

/* The same for merged phases that have a share in the step: as many at once as are the
 * same distance apart. */
static void multiply_few(const convt3d_task *t, const convt3d_unit *u, int few,
                         const convt3d_tile *tile, int64_t count) {
    const convt3d_correlate *c = t->c;
    const int64_t element = (int64_t)t->plan->geometry.element;
    const int64_t width = c->merged[2], own = few & 4 ? c->last[2] : width;
    for (int64_t m = u->m0, end; m < u->m1; m = end) {
        convt3d_tile part = *tile;
        int64_t rows = own;
        end = m + width;
        if (!has_share(c, few, m)) continue;
        for (; end < u->m1 && (own == width || own == 1) && has_share(c, few, end); end += width)
            rows += own;
        part.a = (const char *)tile->a + (m - u->m0) * element;
        part.c = (char *)tile->c + (m - u->m0) * tile->c_row * element;
        if (own == 1 && rows > 1) {
            part.a_row = width;
            part.c_row = width * tile->c_row;
        }
        multiply_straight(t, rows, part, count, 1);
    }
}

/* Vectors along channels: rows are positions; turned back when all are done. */
static void multiply_turned(const convt3d_task *t, const convt3d_unit *u, convt3d_tile *tile,
                            int64_t count) {
    const int64_t element = (int64_t)t->plan->geometry.element, lanes = t->type->lanes;
    const int64_t vectors = convt3d_ceil_div(u->m1 - u->m0, lanes), width = vectors * lanes;
    const int64_t tiles = convt3d_ceil_div(count, t->cut->rows), channels = u->m1 - u->m0;
    const char *a = tile->a;
    char *c = tile->c;
    if (tile->accumulate)
        t->type->own.transpose(t->turned, width, c, t->cut->tile_pitch, 1, channels, width, count);
    tile->c_row = width;
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t start = convt3d_part_start(count, tiles, i);
        const int64_t rows = convt3d_part_start(count, tiles, i + 1) - start;
        if (i % 64 == 63 && convt3d_stopped(&t->call->job, t->thread)) return;
        tile->a = a + start * element;
        tile->c = t->turned + start * width * element;
        convt3d_asks_take(t->asks, tile);
        t->type->gemm[rows - 1][vectors - 1](tile);
    }
    t->type->own.transpose(c, t->cut->tile_pitch, t->turned, width, 1, count, count, channels);
}

/* A step for a unit and, where groups have one unit each, for the groups after it. */
static void multiply(const convt3d_task *t, const convt3d_unit *u, const convt3d_step *step,
                     char *unit_tile, int64_t times) {
    const convt3d_correlate *c = t->c;
    const int64_t element = (int64_t)t->plan->geometry.element;
    const int64_t start = max64(c->lane[step->lane].q0, t->q0);
    const int64_t x = (step->q0 - start) * t->run * element;
    const int64_t count = (step->q1 - step->q0) * t->run;
    const char *slab = t->slab + u->group * c->k * t->cut->row_pitch * element + x;
    convt3d_tile tile = {.a = t->cut->turned ? slab : weights_of(t, u),
                         .b = t->cut->turned ? weights_of(t, u) : slab,
                         .c = unit_tile + step->lane * t->lane_size + x,
                         .a_step = t->cut->turned ? t->cut->row_pitch : c->panel,
                         .a_row = 1,
                         .b_step = t->cut->turned ? c->panel : t->cut->row_pitch,
                         .c_row = t->cut->tile_pitch,
                         .segments = t->program->segment + step->segment,
                         .count = step->count,
                         .accumulate = step->accumulate};
    if (t->cut->turned)
        multiply_turned(t, u, &tile, count);
    else if (step->few)
        multiply_few(t, u, step->few, &tile, count);
    else
        multiply_straight(t, u->m1 - u->m0, tile, count, times);
}

/* ---- A program ------------------------------------------------------------------------- */

/* One step for all units. */
static void run_step(const convt3d_task *t, int64_t unit0, int64_t unit1,
                     const convt3d_step *step) {
    const convt3d_unit first = convt3d_correlate_unit(t, unit0);
    for (int64_t i = unit0; i < unit1; i++) {
        const convt3d_unit u = convt3d_correlate_unit(t, i);
        char *tile = t->tile + (first_channel(t, &u) - first_channel(t, &first)) *
                                   t->cut->tile_pitch * (int64_t)t->plan->geometry.element;
        multiply(t, &u, step, tile, 1);
    }
}

/* A segment for all units before the next one: what it reads of the slab stays close. */
static void run_by_chunk(const convt3d_task *t, int64_t unit0, int64_t unit1) {
    const convt3d_program *p = t->program;
    for (int64_t s = 0; s < p->steps; s++) {
        convt3d_step part = p->step[s];
        const int64_t segments = part.count;
        if (segments) part.count = 1;
        for (int64_t i = 0; i < max64(segments, 1); i++) {
            if (convt3d_stopped(&t->call->job, t->thread)) return;
            run_step(t, unit0, unit1, &part);
            part.segment++;
            part.accumulate = 1;
        }
    }
}

void convt3d_correlate_run(const convt3d_task *t, int64_t unit0, int64_t unit1) {
    const convt3d_program *p = t->program;
    const convt3d_unit first = convt3d_correlate_unit(t, unit0);
    const int64_t times = t->cut->units == 1 && !t->cut->turned ? unit1 - unit0 : 1;
    if (t->terms) {
        convt3d_correlate_run_terms(t, unit0, unit1);
        return;
    }
    if (t->cut->by_chunk) {
        run_by_chunk(t, unit0, unit1);
        return;
    }
    for (int64_t i = unit0; i < unit1; i += times) {
        const convt3d_unit u = convt3d_correlate_unit(t, i);
        char *tile = t->tile + (first_channel(t, &u) - first_channel(t, &first)) *
                                   t->cut->tile_pitch * (int64_t)t->plan->geometry.element;
        if (convt3d_stopped(&t->call->job, t->thread)) return;
        for (int64_t s = 0; s < p->steps; s++) multiply(t, &u, &p->step[s], tile, times);
    }
}
