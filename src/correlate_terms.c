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

int convt3d_correlate_can_terms(const convt3d_plan *plan, const convt3d_correlate *c) {
    enum {
        FEWEST = 16 /* channels on both sides */
    };
    return plan->kernels->terms && plan->problem.dtype == CONVT3D_FLOAT32 &&
           !convt3d_is_merged(c) && c->m >= FEWEST && c->k >= FEWEST;
}

/* A product of two tiles takes 16 cycles, its loads hide behind others; then tiles are turned
 * back, and sources are split. */
double convt3d_correlate_term_cycles(const convt3d_correlate *c, double rows, double row_tiles,
                                     double tap_tiles) {
    static const double products[CONVT3D_TERMS + 1] = {0, 1, 3, 6};
    const double each = c->terms == 1 ? 30 : 18, turn = 100, split = 0.6;
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
    const int64_t row = t->c->term_blocks * t->c->terms * t->cut->row_pitch;
    step[1] = t->cut->flat > 1 ? t->cut->row_length : row;
    step[0] = t->cut->flat > 1 ? row : t->cut->ring * row;
}

/* The range of the slab's row number (d, h). */
static convt3d_range *range_of(const convt3d_task *t, int64_t d, int64_t order) {
    return t->range + d * t->cut->ring + order;
}

void convt3d_correlate_split(const convt3d_task *t, int64_t d, int64_t order, int64_t rows,
                             int64_t k, int64_t channels) {
    const convt3d_correlate *c = t->c;
    const int64_t pitch = t->cut->row_pitch, block = k / CONVT3D_TERM_BLOCK * c->terms * pitch;
    const float *slab = (const float *)t->slab;
    int64_t step[2];
    convt3d_correlate_term_steps(t, step);
    for (int64_t r = order; r < order + rows; r++) {
        convt3d_range *range = range_of(t, d, r), found = convt3d_range_none();
        const convt3d_term_rows work = {
            .from = slab + d * t->slab_step[0] + r * t->slab_step[1] + k * pitch,
            .pitch = pitch,
            .channels = channels,
            .positions = t->cut->row_length * t->run,
            .to = t->term_slab + (d * step[0] + r * step[1] + block) * CONVT3D_TERM_LINE,
            .to_term = pitch * CONVT3D_TERM_LINE,
            .terms = c->terms,
            .range = &found};
        t->plan->kernels->terms->split_rows(&work);
        if (k == 0) *range = convt3d_range_none();
        convt3d_range_add(range, &found);
        convt3d_range_add(t->seen, &found);
    }
}

/* ---- Ranges -------------------------------------------------------------------------------- */

static int fits(const convt3d_task *t, const convt3d_range *x) {
    const double products = (double)t->c->taps * (double)t->c->k;
    return convt3d_ranges_fit(x, &t->call->packed->range, products, t->c->terms);
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

static const char *weights_of(const convt3d_task *t, int64_t panel, int64_t column) {
    const convt3d_correlate *c = t->c;
    const int64_t unit = panel * c->term_units + column / CONVT3D_TERM_COLUMNS;
    return (const char *)t->call->packed + c->at_term_weights +
           unit * c->taps * c->term_blocks * convt3d_term_block_bytes(c);
}

void convt3d_correlate_multiply_terms(const convt3d_task *t, const convt3d_step *step,
                                      int64_t panel, int64_t column, int64_t channels, int64_t x,
                                      int64_t count, char *to) {
    const int64_t width = convt3d_ceil_div(channels, t->type->lanes) * t->type->lanes;
    convt3d_term_tile tile = {.b = weights_of(t, panel, column),
                              .a_term = t->cut->row_pitch * CONVT3D_TERM_LINE,
                              .a_block = t->c->terms * t->cut->row_pitch * CONVT3D_TERM_LINE,
                              .c_row = width,
                              .segments = t->program->segment + step->segment,
                              .count = step->count,
                              .columns = width,
                              .accumulate = step->accumulate};
    if (step->accumulate)
        t->type->transpose(t->turned, width, to, t->cut->tile_pitch, 1, channels, width, count);
    for (int64_t i = 0; i < count; i += CONVT3D_TERM_ROWS) {
        if (i % (64 * CONVT3D_TERM_ROWS) == 0 && convt3d_stopped(&t->call->job, t->thread)) return;
        tile.a = t->term_slab + (x + i) * CONVT3D_TERM_LINE;
        tile.c = (float *)t->turned + i * width;
        tile.rows = min64(CONVT3D_TERM_ROWS, count - i);
        t->plan->kernels->terms->product[t->c->terms - 1](&tile);
    }
    t->type->transpose(to, t->cut->tile_pitch, t->turned, width, 1, count, count, channels);
}

/* ---- Weights to terms --------------------------------------------------------------------------
 */

/* Bits of floats are ordered as their magnitudes: what other threads find, too, comes to the
 * same whoever is first. */
static void add_shared(uint32_t *shared, uint32_t bits, int larger) {
    uint32_t old = __atomic_load_n(shared, __ATOMIC_RELAXED);
    while ((larger ? bits > old : bits < old) &&
           !__atomic_compare_exchange_n(shared, &old, bits, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

void convt3d_correlate_pack_terms(const convt3d_plan *plan, convt3d_packed *packed, int64_t panel,
                                  int64_t k0, int64_t k1) {
    const convt3d_correlate *c = plan->details;
    const float *from = (const float *)((char *)packed + CONVT3D_ALIGN) +
                        panel * c->taps * c->k * c->panel + k0 * c->panel;
    const int64_t bytes = convt3d_term_block_bytes(c);
    convt3d_range range = convt3d_range_none();
    for (int64_t u = 0; u < c->term_units; u++) {
        char *to =
            (char *)packed + c->at_term_weights +
            ((panel * c->term_units + u) * c->taps * c->term_blocks + k0 / CONVT3D_TERM_BLOCK) *
                bytes;
        for (int64_t tap = 0; tap < c->taps; tap++) {
            const convt3d_term_weights work = {
                .from = from + tap * c->k * c->panel + u * CONVT3D_TERM_COLUMNS,
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
