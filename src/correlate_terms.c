/* correlate_terms: forward and backward_input by products of bfloat16 terms.
 *
 * A task's slab is there twice: as float32, as it is gathered, and as terms:
 *
 *     [row][block of 32 channels][term][position][channel]
 *
 * Tiles are turned, their rows being positions: a tap is then an offset of whole lines.
 * Each result row whose sources and weights are within the range (terms.h) is made of
 * terms, any other of float32, by a copy of the task that reads the other slab.  So a
 * result doesn't depend on what it shares a task with.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "terms.h"

#include <fenv.h>

/* ---- The choice -------------------------------------------------------------------------- */

/* Kernel rows (of two axes) or taps that a result takes on one axis, at most. */
static double most_pairs(const convt3d_plan *plan, const convt3d_axis *axis, int a) {
    if (plan->direction != CONVT3D_FORWARD) return (double)axis->kernel;
    const double taps = (double)convt3d_ceil_div(axis->kernel, convt3d_tap_period(axis));
    if (axis->mode == CONVT3D_ZEROS || a == 2) return taps; /* widths are folded afterwards */
    const double both = (double)axis->before + (double)axis->after;
    return taps * (axis->mode == CONVT3D_REPLICATE ? 1 + both : 3);
}

/* Whether all terms of each result are added in one go: what is cut is rounded otherwise, and
 * where it is cut may depend on the batch. */
static int in_one_program(const convt3d_plan *plan, const convt3d_correlate *c) {
    const convt3d_axis *axis = c->axis;
    const double pairs = most_pairs(plan, &axis[0], 0) * most_pairs(plan, &axis[1], 1);
    const double segments = (double)convt3d_ceil_div(c->k, 4 * CONVT3D_TERM_BLOCK);
    return pairs < CONVT3D_PAIRS &&
           pairs * most_pairs(plan, &axis[2], 2) * segments <= CONVT3D_SEGMENTS;
}

int convt3d_correlate_can_terms(const convt3d_plan *plan, const convt3d_correlate *c) {
    return convt3d_has_terms(plan) && !convt3d_is_merged(c) && c->m >= CONVT3D_TERM_CHANNELS &&
           c->k >= CONVT3D_TERM_CHANNELS && in_one_program(plan, c);
}

void convt3d_correlate_describe_terms(const convt3d_plan *plan, convt3d_text *text) {
    const convt3d_correlate *c = plan->details;
    const char *why = "a result takes too many taps";
    if (c->term_count)
        why = "faster for this layer than those of terms";
    else if (convt3d_is_merged(c))
        why = "channels are stride phases";
    else if (c->m < CONVT3D_TERM_CHANNELS || c->k < CONVT3D_TERM_CHANNELS)
        why = "groups of fewer than 16 channels";
    convt3d_describe_terms(plan, c->terms, why, text);
}

/* A product of two tiles takes 16 cycles by itself, and about 26 with its loads and numbers
 * that aren't all 0 (measured).  Then tiles are turned back, and sources are split. */
double convt3d_correlate_term_cycles(const convt3d_correlate *c, double rows, double row_tiles,
                                     double tap_tiles) {
    static const double products[CONVT3D_TERMS + 1] = {0, 1, 3, 6};
    const double each = c->terms == 1 ? 40 : 26, turn = 100, split = 1.2;
    const double columns = (double)convt3d_ceil_div(c->m, CONVT3D_TERM_TILE);
    const double share = (double)c->sources[0] * (double)c->sources[1] /
                         ((double)c->results[0] * (double)c->results[1]);
    return columns *
               (tap_tiles * (double)c->term_blocks * products[c->terms] * each + row_tiles * turn) +
           split * (double)c->term_blocks * CONVT3D_TERM_BLOCK * (double)c->row_length * rows *
               share;
}

/* ---- Sources to terms ---------------------------------------------------------------------- */

/* Lines from depth to depth and row to row of the terms' slab. */
void convt3d_correlate_term_steps(const convt3d_task *t, int64_t step[2]) {
    const int64_t row = t->c->term_blocks * t->c->terms * t->cut->term_pitch;
    step[1] = t->cut->flat > 1 ? t->cut->flat_pitch : row;
    step[0] = t->cut->flat > 1 ? convt3d_depth_pitch(t->cut) : t->cut->ring * row;
}

/* Of a long row. */
static int64_t part_lines(const convt3d_cut *cut) {
    return cut->row_phases * cut->slab_rows[0] * convt3d_depth_pitch(cut);
}

/* Long rows hold the parts of all rows one after another: a part's rows are then run as one
 * without what the other parts would put between them. */
int64_t convt3d_correlate_part_shift(const convt3d_task *t, int64_t part) {
    if (t->plan->direction == CONVT3D_FORWARD || t->cut->flat == 1) return 0;
    return part * part_lines(t->cut) - t->c->part[part].low;
}

/* The range of the slab's row number (d, h). */
static convt3d_range *range_of(const convt3d_task *t, int64_t d, int64_t order) {
    return t->range + d * t->cut->ring + order;
}

/* One row, or its parts. */
static void split_row(const convt3d_task *t, convt3d_term_rows work) {
    const convt3d_correlate *c = t->c;
    const float *from = work.from;
    char *to = work.to;
    if (t->plan->direction == CONVT3D_FORWARD || t->cut->flat == 1) {
        t->plan->kernels->terms->split_rows(&work);
        return;
    }
    for (int64_t p = 0; p < c->parts; p++) {
        work.from = from + c->part[p].low;
        work.positions = c->part[p].reach + c->lane_length;
        work.to = to + p * part_lines(t->cut) * CONVT3D_TERM_LINE;
        t->plan->kernels->terms->split_rows(&work);
    }
}

void convt3d_correlate_split(const convt3d_task *t, int64_t d, int64_t h, int64_t rows, int64_t k,
                             int64_t channels) {
    const convt3d_correlate *c = t->c;
    const int64_t lines = t->cut->term_pitch, pitch = t->cut->row_pitch;
    const int64_t block = k / CONVT3D_TERM_BLOCK * c->terms * lines;
    const float *slab = (const float *)t->slab;
    int64_t step[2];
    convt3d_correlate_term_steps(t, step);
    const int64_t depth = t->order[0][d];
    for (int64_t i = h; i < h + rows; i++) {
        const int64_t row = t->order[1][i];
        convt3d_range *range = range_of(t, depth, row), found = convt3d_range_none();
        const convt3d_term_rows work = {
            .from = slab + convt3d_correlate_slab_at(t, d, i, h, k),
            .pitch = pitch,
            .channels = channels,
            .positions = t->cut->row_length * t->run,
            .to = t->term_slab +
                  (depth * step[0] + t->term_order[i] * step[1] + block) * CONVT3D_TERM_LINE,
            .to_term = lines * CONVT3D_TERM_LINE,
            .terms = c->terms,
            .range = &found};
        split_row(t, work);
        if (k == 0) *range = convt3d_range_none();
        convt3d_range_add(range, &found);
        convt3d_range_add(t->seen, &found);
    }
}

/* ---- Ranges -------------------------------------------------------------------------------- */

static int fits(const convt3d_task *t, const convt3d_range *x) {
    const double products = (double)t->c->taps * (double)t->c->k;
    return convt3d_ranges_fit(t->plan, x, &t->call->packed->range, products, t->c->terms);
}

/* Terms are for whoever rounds to nearest, as tiles do, and weights without Inf or NaN. */
int convt3d_correlate_use_terms(const convt3d_correlate *c, const convt3d_call *call) {
    return c->terms && !call->packed->nonfinite && fegetround() == FE_TONEAREST;
}

int convt3d_correlate_all_fit(const convt3d_task *t) {
    return fits(t, t->seen);
}

int convt3d_correlate_row_fits(const convt3d_task *t, int64_t d, int64_t order) {
    return fits(t, range_of(t, d, order));
}

/* ---- Multiplying ----------------------------------------------------------------------------- */

static const char *weights_of(const convt3d_task *t, const convt3d_unit *u) {
    const convt3d_correlate *c = t->c;
    const int64_t panel = (t->group + u->group) * c->panels + u->panel;
    const int64_t unit = panel * c->term_units + u->column / CONVT3D_TERM_COLUMNS;
    return (const char *)t->call->packed + c->at_term_weights +
           unit * c->taps * c->term_blocks * convt3d_term_block_bytes(c);
}

/* A step for some units: where its positions are, and how many. */
typedef struct piece {
    const convt3d_step *step;
    int64_t unit0, unit1, x, count;
} piece;

/* A unit's sums: [position][channel], turned back when all is done. */
static float *sums_of(const convt3d_task *t, const piece *p, int64_t unit) {
    return (float *)t->turned + (unit - p->unit0) * t->cut->turned_size;
}

static int64_t width_of(const convt3d_task *t, const convt3d_unit *u) {
    return convt3d_ceil_div(u->m1 - u->m0, t->type->lanes) * t->type->lanes;
}

/* Segments [from, end) of the step, for all positions of one unit after another. */
static void multiply_segments(const convt3d_task *t, const piece *p, convt3d_products which,
                              int64_t from, int64_t end, int accumulate) {
    const int64_t lines = t->cut->term_pitch;
    convt3d_term_tile tile = {.a_term = lines * CONVT3D_TERM_LINE,
                              .a_block = t->c->terms * lines * CONVT3D_TERM_LINE,
                              .b_term = CONVT3D_TERM_BLOCK * CONVT3D_TERM_LINE,
                              .b_block = convt3d_term_block_bytes(t->c),
                              .b_half = CONVT3D_TERM_TILE * CONVT3D_TERM_LINE,
                              .segments = t->program->segment + p->step->segment + from,
                              .count = end - from,
                              .accumulate = accumulate,
                              .which = which};
    for (int64_t i = p->unit0; i < p->unit1; i++) {
        const convt3d_unit u = convt3d_correlate_unit(t, i);
        float *sums = sums_of(t, p, i);
        if (convt3d_stopped(&t->call->job, t->thread)) return;
        tile.b = weights_of(t, &u);
        tile.columns = tile.c_row = width_of(t, &u);
        for (int64_t j = 0; j < p->count; j += CONVT3D_TERM_ROWS) {
            tile.a = t->term_slab + (p->x + j) * CONVT3D_TERM_LINE;
            tile.c = sums + j * tile.c_row;
            tile.rows = min64(CONVT3D_TERM_ROWS, p->count - j);
            t->plan->kernels->terms->product[t->c->terms - 1](&tile);
        }
    }
}

/* Cut where it may be, the sums are the same: those of all small products wait in memory for
 * the large ones.  Positions one after another share a segment's weights: as many segments
 * at once as a core's own cache holds weights of, beside the slab. */
static void multiply_piece(const convt3d_task *t, const piece *p) {
    const int64_t count = p->step->count, terms = t->c->terms;
    const int64_t blocks = min64(t->c->term_blocks, convt3d_term_segment(t->c));
    const int64_t near = max64(1, 16 * convt3d_term_segment(t->c) / blocks);
    int more = p->step->accumulate;
    if (count <= near || p->count <= CONVT3D_TERM_ROWS) {
        multiply_segments(t, p, CONVT3D_ALL_PRODUCTS, 0, count, more);
        return;
    }
    for (int64_t s = 0; s < count && terms > 1; s += near, more = 1)
        multiply_segments(t, p, CONVT3D_SMALL_PRODUCTS, s, min64(count, s + near), more);
    for (int64_t s = 0; s < count; s += near * terms, more = 1)
        multiply_segments(t, p, CONVT3D_LARGE_PRODUCTS, s, min64(count, s + near * terms), more);
}

void convt3d_correlate_run_terms(const convt3d_task *t, int64_t unit0, int64_t unit1) {
    const convt3d_program *program = t->program;
    const int64_t element = (int64_t)sizeof(float), pitch = t->cut->tile_pitch;
    const convt3d_unit first = convt3d_correlate_unit(t, unit0);
    for (int64_t s = 0; s < program->steps; s++) {
        const convt3d_step *step = &program->step[s];
        const int64_t start = max64(t->c->lane[step->lane].q0, t->q0);
        const piece p = {step, unit0, unit1, (step->q0 - start) * t->run,
                         (step->q1 - step->q0) * t->run};
        char *const tile = t->tile + step->lane * t->lane_size + p.x * element;
        for (int turn_back = !step->accumulate; turn_back < 2; turn_back++) {
            if (turn_back) multiply_piece(t, &p);
            for (int64_t i = unit0; i < unit1; i++) {
                const convt3d_unit u = convt3d_correlate_unit(t, i);
                const int64_t channels = u.m1 - u.m0, width = width_of(t, &u);
                char *rows = tile + (u.m0 - first.m0) * pitch * element;
                float *sums = sums_of(t, &p, i);
                if (turn_back)
                    t->type->own.transpose(rows, pitch, sums, width, 1, p.count, p.count, channels);
                else
                    t->type->own.transpose(sums, width, rows, pitch, 1, channels, width, p.count);
            }
        }
    }
}

/* ---- Weights to terms ----------------------------------------------------------------------- */

/* Bits of floats are ordered as their magnitudes: what other threads find, too, comes to the
 * same whoever is first. */
static void add_shared(uint32_t *shared, uint32_t bits, int larger) {
    uint32_t old = __atomic_load_n(shared, __ATOMIC_RELAXED);
    while ((larger ? bits > old : bits < old) &&
           !__atomic_compare_exchange_n(shared, &old, bits, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

void convt3d_correlate_pack_terms(const convt3d_plan *plan, convt3d_packed *packed, int64_t panel,
                                  int64_t k0, int64_t k1, const float *from, int64_t step) {
    const convt3d_correlate *c = plan->details;
    const int64_t bytes = convt3d_term_block_bytes(c);
    convt3d_range range = convt3d_range_none();
    for (int64_t u = 0; u < c->term_units; u++) {
        char *to =
            (char *)packed + c->at_term_weights +
            ((panel * c->term_units + u) * c->taps * c->term_blocks + k0 / CONVT3D_TERM_BLOCK) *
                bytes;
        for (int64_t tap = 0; tap < c->taps; tap++) {
            const convt3d_term_weights work = {
                .from = from + tap * step + u * CONVT3D_TERM_COLUMNS,
                .pitch = c->panel,
                .k_count = k1 - k0,
                .m_count = min64(CONVT3D_TERM_COLUMNS, c->panel - u * CONVT3D_TERM_COLUMNS),
                .to = to + tap * c->term_blocks * bytes,
                .terms = c->term_count,
                .range = &range};
            plan->kernels->terms->split_weights(&work);
        }
    }
    add_shared(&packed->range.most, range.most, 1);
    add_shared(&packed->range.least, range.least, 0);
}
