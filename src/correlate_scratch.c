/* correlate_scratch: how far apart rows of the slab and of the tile are, and what scratch a
 * thread of forward and backward_input needs.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"

#include <string.h>

/* Rows of the slab and of the tile.  Rows of runs are an odd number of cache
 * lines apart, or the channels of one position would share a cache's set. */
int convt3d_correlate_set_pitches(const convt3d_plan *plan, const convt3d_correlate *c,
                                  convt3d_cut *cut) {
    enum {
        PAGE = 64, /* lines that go to different sets of the innermost cache, */
        NEAR = 8   /* which blocks and terms must not all share */
    };
    const int64_t lanes = plan->type->lanes;
    const int64_t line = CONVT3D_ALIGN / (int64_t)plan->geometry.element;
    if (max64(cut->row_length, cut->strip) > (INT64_MAX - 4 * (lanes + line)) / cut->run) return 0;
    cut->row_pitch = cut->row_length * cut->run;
    if (cut->flat > 1) cut->row_pitch *= cut->slab_rows[1];
    if (cut->run > 1 || cut->flat > 1)
        cut->row_pitch = (convt3d_ceil_div(cut->row_pitch, line) | 1) * line;
    cut->row_phases = plan->direction == CONVT3D_FORWARD ? 1 : c->axis[1].stride;
    cut->phase_rows = cut->slab_rows[1];
    if (c->axis[1].dilation == 1)
        cut->phase_rows = convt3d_ceil_div(cut->slab_rows[1], cut->row_phases);
    const int64_t positions =
        cut->strip + (cut->flat - 1) * cut->flat_pitch + (cut->deep - 1) * convt3d_depth_pitch(cut);
    cut->term_pitch = cut->row_length * cut->run;
    if (cut->flat > 1)
        cut->term_pitch = c->parts * cut->row_phases * cut->slab_rows[0] * convt3d_depth_pitch(cut);
    if (c->terms && (cut->term_pitch + NEAR) % PAGE < 2 * NEAR) cut->term_pitch += 3 * NEAR;
    cut->tile_pitch = convt3d_ceil_div(positions * cut->run, lanes) * lanes + lanes;
    /* Tiles of positions, and those of terms, may be longer than what there is. */
    cut->turned_size = (cut->tile_pitch + CONVT3D_TERM_ROWS) * (cut->width + lanes);
    return 1;
}

int64_t convt3d_correlate_carries(const convt3d_correlate *c, const convt3d_cut *cut) {
    return cut->groups * c->m * (cut->rolling ? cut->block[0] : 1);
}

/* The parts of a thread's scratch, one after another. */
enum {
    SLAB,
    TILE,
    TURNED, /* tile rows with vectors along channels */
    FULL,   /* a row before its borders are folded */
    ZEROS,
    CARRIES,
    ASKS,
    TERMS, /* the slab's, as lines */
    RANGES,
    PARTS
};

static size_t element_of(const convt3d_plan *plan, int part) {
    if (part == CARRIES) return sizeof(convt3d_carry);
    if (part == TERMS) return CONVT3D_TERM_LINE;
    if (part == RANGES) return sizeof(convt3d_range);
    return part == ASKS ? sizeof(char *) : plan->geometry.element;
}

/* What one cut needs, as factors.  Tiles read and write past their ends, by less than a
 * vector. */
static void factors_of(const convt3d_plan *plan, const convt3d_correlate *c, const convt3d_cut *cut,
                       int64_t sizes[PARTS][4]) {
    const int64_t lanes = plan->type->lanes, rolling = cut->rolling;
    const int64_t together = max64(cut->together[0], cut->together[1]);
    const int64_t full = convt3d_folds_rows(plan) ? plan->geometry.axis[2].full : 0;
    const int64_t all[PARTS][4] = {
        [SLAB] = {cut->slab_rows[0], cut->flat > 1 ? 1 : cut->ring, cut->groups * c->k,
                  cut->row_pitch},
        [TILE] = {max64(c->lanes, 1), together, cut->width, cut->tile_pitch},
        [TURNED] = {cut->turned ? together : 0, cut->turned_size, 1, 1},
        [FULL] = {1, 1, cut->run, full},
        /* No longer than the tile itself. */
        [ZEROS] = {max64(CONVT3D_ZEROS_LENGTH + lanes, c->cut[0].tile_pitch), 1, 1, 1},
        [CARRIES] = {c->stream, cut->groups, c->m, rolling ? cut->block[0] : 1},
        [ASKS] = {rolling ? cut->slab_rows[0] : 0, rolling ? cut->ring : 0, cut->groups, c->k},
        [TERMS] = {cut->flat > 1 ? 1 : cut->slab_rows[0], cut->flat > 1 ? 1 : cut->ring,
                   c->term_blocks * c->terms, cut->term_pitch},
        [RANGES] = {c->terms ? cut->slab_rows[0] : 0, cut->ring, 1, 1}};
    memcpy(sizes, all, sizeof all);
}

/* The larger of what the two cuts need, and a little more. */
static int grow_part(size_t *total, int64_t sizes[2][PARTS][4], int part, size_t element,
                     size_t more) {
    size_t bytes[2];
    for (int i = 0; i < 2; i++) {
        if (!convt3d_bytes(sizes[i][part], 4, element, &bytes[i])) return 0;
    }
    if (!convt3d_grow(total, 1, bytes[0] > bytes[1] ? bytes[0] : bytes[1]) ||
        !convt3d_grow(total, 1, more))
        return 0;
    *total = convt3d_round_up(*total);
    return 1;
}

/* The parts, then the program and the two lists of source rows. */
int convt3d_correlate_size_scratch(const convt3d_plan *plan, convt3d_correlate *c) {
    int64_t sizes[2][PARTS][4];
    size_t at_slab, *const start[PARTS] = {&at_slab,    &c->at_tile,  &c->at_turned,
                                           &c->at_full, &c->at_zero,  &c->at_carry,
                                           &c->at_asks, &c->at_terms, &c->at_ranges};
    size_t total = 0;
    for (int i = 0; i < 2; i++) {
        if (!convt3d_correlate_set_pitches(plan, c, &c->cut[i])) return 0;
    }
    for (int i = 0; i < 2; i++) factors_of(plan, c, &c->cut[i], sizes[i]);
    for (int part = 0; part < PARTS; part++) {
        const size_t slack = (size_t)plan->type->lanes * plan->geometry.element;
        const size_t more = part == SLAB    ? slack
                            : part == ASKS  ? sizeof(convt3d_asks)
                            : part == TERMS ? (size_t)CONVT3D_TERM_ROWS * CONVT3D_TERM_LINE
                                            : 0;
        *start[part] = total;
        if (!grow_part(&total, sizes, part, element_of(plan, part), more)) return 0;
    }
    c->zeros_bytes = c->at_carry - c->at_zero;
    c->at_program = total;
    if (!convt3d_grow(&total, 1, sizeof(convt3d_program))) return 0;
    for (int a = 0; a < 2; a++) {
        const int64_t rows = max64(c->cut[0].slab_rows[a], c->cut[1].slab_rows[a]);
        c->at_list[a] = total = convt3d_round_up(total);
        if (!convt3d_grow(&total, (size_t)rows, sizeof(int64_t))) return 0;
        c->at_order[a] = total = convt3d_round_up(total);
        if (!convt3d_grow(&total, (size_t)rows, sizeof(int64_t))) return 0;
        c->at_term_order = total = convt3d_round_up(total); /* of the last one, the height */
        if (!convt3d_grow(&total, (size_t)rows, sizeof(int64_t))) return 0;
    }
    c->thread_bytes = convt3d_round_up(total);
    return 1;
}
