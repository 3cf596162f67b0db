/* outer_terms: backward_weight by products of bfloat16 terms.
 *
 * The reduction runs along positions, so that both sides have two positions of a channel in
 * each pair of bfloat16 that a tile multiplies: p and p + 16.
 *
 *     x             [row][32 channels][32 positions][term][channel]   a line: 32 positions
 *     grad_output   [row][16 channels][term][position]   a line: 16 channels at p and p + 16
 *
 * grad_output's rows are parted by stride phase, with zeros where taps reach beyond the data:
 * a tap is then an offset of lines, and what x's last line of a row lacks is zeros as well.
 *
 * A block of rows whose numbers terms can't hold is packed and multiplied as float32, and added
 * to the same sums; blocks depend on the layer alone.
 * SPDX-License-Identifier: MIT */
#include "outer.h"
#include "terms.h"

#include <fenv.h>
#include <string.h>

typedef convt3d_outer_task task;

enum {
    LINE = CONVT3D_TERM_LINE,
    BLOCK = CONVT3D_TERM_BLOCK,
    HALF = CONVT3D_TERM_TILE /* channels of grad_output that lie side by side */
};

/* ---- The choice ------------------------------------------------------------------------- */

static int has_channels(const convt3d_outer *c) {
    return c->x.channels >= CONVT3D_TERM_CHANNELS && c->dy.channels >= CONVT3D_TERM_CHANNELS;
}

void convt3d_outer_choose_terms(const convt3d_plan *plan, convt3d_outer *c, double cycles) {
    static const double products[CONVT3D_TERMS + 1] = {0, 1, 3, 6};
    const int64_t in = plan->geometry.axis[2].in;
    const double a_multiply_add = 0.575, each = 26;
    /* What the model leaves out, packing rows again for each block and sums that come and go,
     * takes nearly as long again (measured), and longer where there are many sums. */
    const double better = 1 / 1.9, most_sums = 1 << 20;
    const int terms = convt3d_terms_of(plan);
    if (!convt3d_has_terms(plan) || !has_channels(c) || in < HALF) return;
    const int64_t blocks = convt3d_ceil_div(in, BLOCK);
    const double full = (double)(blocks * BLOCK) / (double)max64(in, 1);
    const double tiles = (double)convt3d_ceil_div(c->x.channels, CONVT3D_TERM_TILE) *
                         (double)convt3d_ceil_div(c->dy.channels, CONVT3D_TERM_TILE);
    double rows = 1; /* of grad_output to one of x */
    for (int a = 0; a < 2; a++)
        rows *= (double)plan->geometry.axis[a].out / (double)plan->geometry.axis[a].in;
    const double split = 0.8 * (double)c->x.channels + 2 * rows * (double)c->phase_positions /
                                                           (double)max64(in, 1) *
                                                           (double)c->dy.channels;
    const double own = (double)c->taps * tiles * products[terms] * each * full / BLOCK + split;
    if (own >= better * a_multiply_add * cycles ||
        (double)c->taps * (double)c->x.channels * (double)c->dy.channels > most_sums)
        return;
    c->terms = terms;
    c->term_blocks = blocks;
    c->x_is_a = 1;
    c->tap_rows = 0;
    c->rows = BLOCK;
    c->vectors = 2;
    c->x_lines = blocks * terms * BLOCK;
    c->dy_lines = convt3d_ceil_div(c->dy.channels, HALF) * terms * (c->phase_positions + BLOCK);
}

void convt3d_outer_describe_terms(const convt3d_plan *plan, convt3d_text *text) {
    const convt3d_outer *c = plan->details;
    convt3d_describe_terms(plan, c->terms,
                           has_channels(c) ? "faster for this layer than those of terms"
                                           : "groups of fewer than 16 channels",
                           text);
}

int convt3d_outer_use_terms(const convt3d_outer *c) {
    return c->terms && fegetround() == FE_TONEAREST;
}

/* ---- Rows to terms ---------------------------------------------------------------------- */

/* Some channels of a row, as it is or parted by phase, to the stage; returns its positions. */
static int64_t stage(const task *t, const convt3d_view *v, const char *from, int64_t channels,
                     int parted) {
    const convt3d_outer *c = t->c;
    const convt3d_movers *movers = t->plan->movers;
    const convt3d_span whole = {0, 1, c->x.positions, 0};
    const int64_t positions = parted ? c->phase_positions : c->x.positions;
    const int64_t *stride = v->stride, stored = (int64_t)movers->element;
    if (parted) memset(t->stage, 0, (size_t)(channels * positions) * sizeof(float));
    const int64_t spans = parted ? c->phase_spans : 1;
    for (int64_t i = 0; i < spans; i++) {
        const convt3d_span *span = parted ? &c->phase_span[i] : &whole, *odd = NULL;
        if (i + 1 < spans && stride[4] == 1 && stride[1] != 1) {
            const convt3d_span *first = convt3d_spans_first(&span[0], &span[1]);
            if (first) {
                odd = &span[first == span];
                span = first;
                i++;
            }
        }
        const char *p = from + span->from * stride[4] * stored;
        const int64_t step = span->step * stride[4];
        const convt3d_rows rows = {.to = t->stage + span->to,
                                   .odd = odd ? t->stage + odd->to : NULL,
                                   .to_step = {positions},
                                   .from = p,
                                   .from_step = {stride[1], 0, step},
                                   .count = {channels, 1, span->count},
                                   .odds = odd ? odd->count : 0};
        if (!span->count) continue;
        if (stride[1] == 1 && channels > 1)
            movers->transpose(t->stage + span->to, positions, p, step, 1, span->count, span->count,
                              channels);
        else
            movers->gather(&rows);
    }
    return positions;
}

static void split(const task *t, int64_t channels, int64_t positions, char *to, int64_t to_term,
                  int turned, convt3d_range *range) {
    const convt3d_term_lines lines = {.from = t->stage,
                                      .pitch = positions,
                                      .channels = channels,
                                      .positions = positions,
                                      .to = to,
                                      .to_term = to_term,
                                      .to_block = t->c->terms * BLOCK * LINE,
                                      .terms = t->c->terms,
                                      .turned = turned,
                                      .range = range};
    t->plan->kernels->terms->split_lines(&lines);
}

static int pack_x(const task *t, convt3d_range *range) {
    const convt3d_outer *c = t->c;
    const convt3d_view *v = &t->call->input;
    const int64_t depth = t->plan->geometry.axis[0].in, stored = (int64_t)t->plan->movers->element;
    char *to = t->term_x;
    for (int64_t plane = t->first[0]; plane < t->end[0]; plane++) {
        for (int64_t h = t->first[1]; h < t->end[1]; h++) {
            const char *row = convt3d_outer_row_at(t, v, &c->x, plane, depth, h);
            if (convt3d_stopped(&t->call->job, t->thread)) return 0;
            for (int64_t b = t->block0; b < t->block1; b++, to += c->x_lines * LINE) {
                const int64_t channels = min64(BLOCK, c->x.channels - b * BLOCK);
                stage(t, v, row + b * BLOCK * v->stride[1] * stored, channels, 0);
                split(t, channels, c->x.positions, to, BLOCK * LINE, 0, range);
            }
        }
    }
    return 1;
}

/* Lines from term to term and from one 16 channels to the next. */
static int64_t dy_term(const convt3d_outer *c) {
    return c->phase_positions + BLOCK;
}

static int pack_dy(const task *t, convt3d_range *range) {
    const convt3d_outer *c = t->c;
    const convt3d_view *v = &t->call->output;
    const int64_t depth = t->plan->geometry.axis[0].out, stored = (int64_t)t->plan->movers->element;
    char *to = t->term_dy;
    for (int64_t d = 0; d < t->listed[0]; d++) {
        for (int64_t h = 0; h < t->listed[1]; h++) {
            const char *row =
                convt3d_outer_row_at(t, v, &c->dy, t->list[0][d], depth, t->list[1][h]);
            if (convt3d_stopped(&t->call->job, t->thread)) return 0;
            for (int64_t k = 0; k < c->dy.channels; k += HALF, to += c->terms * dy_term(c) * LINE) {
                const int64_t channels = min64(HALF, c->dy.channels - k);
                const int64_t positions = stage(t, v, row + k * v->stride[1] * stored, channels, 1);
                split(t, channels, positions, to, dy_term(c) * LINE, 1, range);
            }
        }
    }
    return 1;
}

int convt3d_outer_pack_terms(convt3d_outer_task *t, int *fit) {
    convt3d_range x = convt3d_range_none(), dy = convt3d_range_none();
    double products = (double)t->c->planes;
    for (int a = 1; a < 3; a++) products *= (double)t->plan->geometry.axis[a].in;
    convt3d_outer_list(t);
    if (!pack_x(t, &x) || !pack_dy(t, &dy)) return 0;
    *fit = convt3d_ranges_fit(t->plan, &x, &dy, products, t->c->terms);
    return 1;
}

/* ---- Multiplying ------------------------------------------------------------------------- */

/* A segment for each x row of the block that taps (kd, kh) carry to a dy row. */
static int64_t list_segments(const task *t, int64_t kd, int64_t kh) {
    const convt3d_outer *c = t->c;
    const convt3d_axis *axis = t->plan->geometry.axis;
    const int64_t height = t->end[1] - t->first[1], x_row = (t->block1 - t->block0) * c->x_lines;
    int64_t count = 0;
    for (int64_t d = 0; d < t->end[0] - t->first[0]; d++) {
        const int64_t plane = t->meets[0][d * axis[0].kernel + kd];
        for (int64_t h = 0; h < height && plane >= 0; h++) {
            const int64_t row = t->meets[1][h * axis[1].kernel + kh];
            if (row >= 0)
                t->segment[count++] =
                    (convt3d_segment){.a = (d * height + h) * x_row,
                                      .b = (plane * t->listed[1] + row) * c->dy_lines,
                                      .k = c->term_blocks * BLOCK};
        }
    }
    return count;
}

/* All taps of one kernel row, for one block of x's channels. */
static void multiply_line(const task *t, int64_t block, int64_t line, int64_t count) {
    const convt3d_outer *c = t->c;
    const int64_t kernel = t->plan->geometry.axis[2].kernel;
    const int64_t half = c->terms * dy_term(c) * LINE;
    float *sums = (float *)t->sums + (block - t->block0) * c->block_sums;
    convt3d_term_tile tile = {.a = t->term_x + (block - t->block0) * c->x_lines * LINE,
                              .a_term = BLOCK * LINE,
                              .a_block = c->terms * BLOCK * LINE,
                              .b_term = dy_term(c) * LINE,
                              .b_block = BLOCK * LINE,
                              .b_half = half,
                              .c_row = c->b_length,
                              .segments = t->segment,
                              .count = count,
                              .rows = BLOCK,
                              .accumulate = 1};
    for (int64_t k = 0; k < c->dy.channels; k += 2 * HALF) {
        tile.columns = min64(2 * HALF, c->b_length - k);
        for (int64_t tap = 0; tap < kernel; tap++) {
            tile.b = t->term_dy + k / HALF * half + c->phase_tap[tap].offset * LINE;
            tile.c = sums + (line * kernel + tap) * BLOCK * c->b_length + k;
            t->plan->kernels->terms->product[c->terms - 1](&tile);
        }
    }
}

int convt3d_outer_run_terms(const convt3d_outer_task *t) {
    const convt3d_axis *axis = t->plan->geometry.axis;
    for (int64_t line = 0; line < axis[0].kernel * axis[1].kernel; line++) {
        const int64_t count = list_segments(t, line / axis[1].kernel, line % axis[1].kernel);
        for (int64_t block = t->block0; block < t->block1 && count; block++) {
            if (convt3d_stopped(&t->call->job, t->thread)) return 0;
            multiply_line(t, block, line, count);
        }
    }
    return 1;
}
