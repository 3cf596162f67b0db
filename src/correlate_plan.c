/* correlate_plan: lanes, taps and pieces of a row, and the size of a task.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "error.h"
#include "terms.h"
#include "tiles.h"

#include <stdlib.h>
#include <string.h>

/* ---- Lanes and taps --------------------------------------------------------- */

/* The lane of tap 'first' and those that share its phase: its positions, and its
 * taps in the order in which they come to reach real data.  0 if it has none. */
static int forward_lane(const convt3d_axis *axis, int64_t first, convt3d_lane *lane,
                        convt3d_tap *tap) {
    int fold = axis->mode != CONVT3D_ZEROS;
    int64_t from = fold ? 0 : axis->before;
    int64_t end = fold ? axis->full : axis->before + axis->out;
    int64_t phase = first * axis->dilation % axis->stride, count = 0;
    lane->phase = phase;
    lane->q0 = convt3d_ceil_div(from - phase, axis->stride);
    lane->q1 = convt3d_ceil_div(end - phase, axis->stride);
    const int64_t period = convt3d_tap_period(axis), taps = (axis->kernel - 1 - first) / period + 1;
    for (; count < taps; count++) {
        int64_t k = first + count * period;
        int64_t e = k * axis->dilation / axis->stride; /* position q reads input q - e */
        tap[count] = (convt3d_tap){k, lane->q0 - e, e, e + axis->in};
    }
    lane->tap0 = 0;
    lane->tap1 = count;
    return lane->q0 < lane->q1;
}

/* All lanes of forward: the phases of the first taps, until they repeat. */
static void forward_lanes(const convt3d_axis *axis, convt3d_correlate *c) {
    int64_t taps = 0, distinct = min64(axis->kernel, convt3d_tap_period(axis));
    for (int64_t k = 0; k < distinct; k++) {
        convt3d_lane *lane = &c->lane[c->lanes];
        if (!forward_lane(axis, k, lane, c->tap + taps)) continue;
        lane->tap0 += taps;
        lane->tap1 += taps;
        taps = lane->tap1;
        c->lanes++;
    }
}

/* The one lane of backward_input. */
static void backward_lane(const convt3d_axis *axis, convt3d_correlate *c) {
    c->lane[0] = (convt3d_lane){.q1 = axis->in, .tap1 = axis->kernel};
    c->lanes = 1;
    c->row_length = convt3d_phase_row(axis, c->tap, c->span, &c->spans);
}

/* Forward's slab row: the input row with the zeros that taps may read beyond
 * its ends; without them where only pieces are ever run. */
static void forward_row(const convt3d_axis *axis, convt3d_correlate *c) {
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int64_t i = 0; i < c->lanes; i++) {
        const convt3d_lane *lane = &c->lane[i];
        for (int64_t t = lane->tap0; t < lane->tap1; t++) {
            low = min64(low, c->tap[t].offset);
            high = max64(high, c->tap[t].offset + (lane->q1 - lane->q0));
        }
    }
    if (c->clip) {
        low = max64(low, 0);
        high = min64(high, axis->in);
    }
    if (low >= high) low = high = 0; /* nothing is ever read */
    for (int64_t i = 0; i < c->lanes; i++) {
        for (int64_t t = c->lane[i].tap0; t < c->lane[i].tap1; t++) c->tap[t].offset -= low;
    }
    int64_t from = max64(low, 0), end = min64(high, axis->in);
    if (from < end) c->span[c->spans++] = (convt3d_span){from, 1, end - from, from - low};
    c->row_length = high - low;
}

/* ---- Pieces ------------------------------------------------------------------- */

/* Cuts a lane where a tap starts or stops reaching real data.  Both limits rise
 * with the tap's place in the list, so the taps at work are always a range. */
static void cut_pieces(convt3d_correlate *c, convt3d_lane *lane, int64_t *pieces) {
    int64_t t0 = lane->tap0, t1 = lane->tap0;
    lane->piece0 = *pieces;
    for (int64_t q = lane->q0, next; q < lane->q1; q = next) {
        while (t1 < lane->tap1 && c->tap[t1].real0 <= q) t1++;
        while (t0 < t1 && c->tap[t0].real1 <= q) t0++;
        next = lane->q1;
        if (t1 < lane->tap1) next = min64(next, c->tap[t1].real0);
        if (t0 < t1) next = min64(next, c->tap[t0].real1);
        c->piece[(*pieces)++] = (convt3d_piece){q, next, t0, t1};
    }
    lane->piece1 = *pieces;
}

/* Vectors that positions of a row take: very short rows of a batch are several samples
 * side by side. */
static double vectors_of(const convt3d_plan *plan, const convt3d_correlate *c, int64_t positions) {
    const int64_t most = CONVT3D_RUN_BYTES / (int64_t)plan->geometry.element;
    const int64_t batch = plan->geometry.batch, lanes = plan->type->lanes;
    const int side_by_side = c->lane_length <= CONVT3D_SHORT_ROW && batch >= CONVT3D_SAMPLES;
    return (double)convt3d_ceil_div(positions * (side_by_side ? min64(most, batch) : 1), lanes);
}

/* Whole vectors multiplied along one row, with the halo and without. */
static void choose_clip(const convt3d_plan *plan, convt3d_correlate *c) {
    enum {
        LONG_ROW = 32
    };
    double whole = 0, cut = 0;
    for (int64_t i = 0; i < c->lanes; i++) {
        const convt3d_lane *lane = &c->lane[i];
        whole += (double)(lane->tap1 - lane->tap0) * vectors_of(plan, c, lane->q1 - lane->q0);
        for (int64_t p = lane->piece0; p < lane->piece1; p++)
            cut += (double)(c->piece[p].tap1 - c->piece[p].tap0) *
                   vectors_of(plan, c, c->piece[p].q1 - c->piece[p].q0);
    }
    c->clip = cut < whole;
    /* Tiles of terms are as long as these vectors, but rows of one sample are rather run as
     * one long one, with all halos. */
    if (c->terms && c->lane_length < LONG_ROW &&
        !(c->lane_length <= CONVT3D_SHORT_ROW && plan->geometry.batch >= CONVT3D_SAMPLES))
        c->clip = 0;
}

static void prepare_row(const convt3d_plan *plan, convt3d_correlate *c) {
    const convt3d_axis *axis = &c->axis[2];
    int64_t pieces = 0;
    if (plan->direction == CONVT3D_FORWARD)
        forward_lanes(axis, c);
    else
        backward_lane(axis, c);
    for (int64_t i = 0; i < c->lanes; i++) {
        cut_pieces(c, &c->lane[i], &pieces);
        c->lane_length = max64(c->lane_length, c->lane[i].q1 - c->lane[i].q0);
    }
    choose_clip(plan, c);
    if (plan->direction == CONVT3D_FORWARD) forward_row(axis, c);
}

/* The parts of a slab row: backward_input has one for each phase of grad_output. */
static void prepare_parts(const convt3d_plan *plan, convt3d_correlate *c) {
    const convt3d_axis *axis = &c->axis[2];
    const int64_t period = plan->direction == CONVT3D_FORWARD ? 1 : convt3d_tap_period(axis);
    c->parts = min64(period, axis->kernel);
    c->first_position = INT64_MAX;
    for (int64_t i = 0; i < c->lanes; i++)
        c->first_position = min64(c->first_position, c->lane[i].q0);
    for (int64_t i = 0; i < c->lanes; i++)
        c->positions = max64(c->positions, c->lane[i].q1 - c->first_position);
    for (int64_t p = 0; p < c->parts; p++) c->part[p] = (convt3d_part){INT64_MAX, INT64_MIN, 0};
    for (int64_t i = 0; i < c->lanes; i++) { /* 'reach' is the highest element at first */
        for (int64_t t = c->lane[i].tap0; t < c->lane[i].tap1; t++) {
            convt3d_part *part = &c->part[c->tap_part[t] = c->tap[t].k % period];
            int64_t at = c->tap[t].offset - (c->lane[i].q0 - c->first_position);
            part->low = min64(part->low, at);
            part->reach = max64(part->reach, at);
        }
    }
    for (int64_t p = 0; p < c->parts && c->lanes; p++) {
        c->part[p].reach -= c->part[p].low;
        if (p) c->part[p].before = c->part[p - 1].before + c->part[p - 1].reach;
    }
    for (int64_t i = 0, p = 0; i < c->spans; i++) {
        while (p + 1 < c->parts && c->part[p + 1].low <= c->span[i].to) p++;
        c->span_part[i] = p;
    }
}

/* ---- The whole -------------------------------------------------------------------- */

enum {
    FEW_CHANNELS = 4,
    ENOUGH_CHANNELS = 8 /* of the source, for phases with unequal taps: a step for each kind;
                           groups that go together need some, too */
};

/* One axis of the layer that has all phases at once: position q = i + e for the taps
 * k = e*stride + phase. */
static convt3d_axis merge_axis(const convt3d_axis *axis) {
    const int64_t q0 = axis->before / axis->stride;
    const int64_t q1 = (axis->before + axis->out - 1) / axis->stride + 1;
    convt3d_axis merged = {.in = axis->in,
                           .out = q1 - q0,
                           .kernel = convt3d_ceil_div(axis->kernel, axis->stride),
                           .stride = 1,
                           .dilation = 1,
                           .before = q0,
                           .mode = CONVT3D_ZEROS};
    merged.full = max64(merged.in + merged.kernel - 1, q1);
    return merged;
}

/* Few channels, and taps for every phase.  It depends on the layer alone, as the
 * layout of its weights does. */
static void choose_merged(const convt3d_plan *plan, convt3d_correlate *c) {
    int64_t phases = 1;
    int can = plan->direction == CONVT3D_FORWARD && c->m <= FEW_CHANNELS;
    const int64_t fewest = plan->geometry.groups > FEW_CHANNELS ? FEW_CHANNELS : 1;
    int uneven = 0;
    for (int a = 0; a < 3; a++) {
        const convt3d_axis *axis = &c->axis[a];
        can = can && axis->dilation == 1 && axis->kernel >= axis->stride &&
              axis->mode == CONVT3D_ZEROS && axis->stride <= CONVT3D_TEETH;
        uneven = uneven || axis->kernel % axis->stride;
        phases *= can ? axis->stride : 1;
    }
    can = can && plan->type->gemm[c->axis[2].stride - 1][0]; /* a tile of one width's phases */
    if (!can || phases == 1 || phases * c->m > 64 || c->k < (uneven ? ENOUGH_CHANNELS : fewest))
        return;
    c->m *= phases;
    for (int a = 0; a < 3; a++) {
        c->merged[a] = c->axis[a].stride;
        c->last[a] = (c->axis[a].kernel - 1) % c->axis[a].stride + 1;
        c->axis[a] = merge_axis(&c->axis[a]);
    }
}

/* A panel of whole units of terms: two, if that fills up little more than one does. */
static int64_t whole_units(int64_t m, int64_t panel) {
    const int64_t unit = CONVT3D_TERM_COLUMNS;
    if (panel % unit == 0) return panel;
    return convt3d_ceil_div(m, 2 * unit) * 2 * unit <= m + unit ? 2 * unit : unit;
}

static void prepare_channels(const convt3d_plan *plan, convt3d_correlate *c) {
    const convt3d_geometry *g = &plan->geometry;
    int forward = plan->direction == CONVT3D_FORWARD;
    c->m = forward ? g->group_outputs : g->group_inputs;
    c->k = forward ? g->group_inputs : g->group_outputs;
    memcpy(c->axis, g->axis, sizeof c->axis);
    for (int a = 0; a < 3; a++) c->merged[a] = c->last[a] = 1;
    choose_merged(plan, c);
    /* With merged phases, units are whole phases of one width: a panel must not cut them. */
    c->panel = convt3d_is_merged(c) ? c->m : convt3d_panel_width(plan->type, c->m);
    if (convt3d_correlate_can_terms(plan, c) && c->m > 2 * CONVT3D_TERM_COLUMNS)
        c->panel = whole_units(c->m, c->panel);
    c->panels = convt3d_ceil_div(c->m, c->panel);
    /* Few results for each source: all taps of a few channels while these are in the
     * innermost cache.  It is part of the order of additions, so that it may depend on
     * nothing but the layer. */
    c->k_block = c->m <= 2 * FEW_CHANNELS ? 8 : max64(c->k, 1);
    c->taps = c->axis[0].kernel * c->axis[1].kernel * c->axis[2].kernel;
    if (convt3d_correlate_can_terms(plan, c)) {
        c->term_count = convt3d_terms_of(plan);
        c->term_blocks = convt3d_ceil_div(c->k, CONVT3D_TERM_BLOCK);
        c->term_units = convt3d_ceil_div(c->panel, CONVT3D_TERM_COLUMNS);
    }
    for (int a = 0; a < 2; a++) {
        c->results[a] = forward ? c->axis[a].out : g->axis[a].in;
        c->sources[a] = forward ? g->axis[a].in : g->axis[a].out;
    }
}

/* One block for the struct and its tables.  A row has at most as many lanes and
 * parts as taps, two cuts for each tap, and three spans for each phase. */
static convt3d_correlate *allocate(const convt3d_plan *plan, size_t *bytes) {
    size_t kernel = (size_t)plan->geometry.axis[2].kernel;
    *bytes = sizeof(convt3d_correlate);
    if (!convt3d_grow(bytes, kernel, sizeof(convt3d_lane)) ||
        !convt3d_grow(bytes, kernel, sizeof(convt3d_tap)) ||
        !convt3d_grow(bytes, 3 * kernel, sizeof(convt3d_piece)) ||
        !convt3d_grow(bytes, 3 * kernel, sizeof(convt3d_span)) ||
        !convt3d_grow(bytes, kernel, sizeof(convt3d_part)) ||
        !convt3d_grow(bytes, 4 * kernel, sizeof(int64_t)))
        return NULL;
    convt3d_correlate *c = malloc(*bytes);
    if (!c) return NULL;
    memset(c, 0, sizeof *c);
    c->lane = (convt3d_lane *)(c + 1);
    c->tap = (convt3d_tap *)(c->lane + kernel);
    c->piece = (convt3d_piece *)(c->tap + kernel);
    c->span = (convt3d_span *)(c->piece + 3 * kernel);
    c->part = (convt3d_part *)(c->span + 3 * kernel);
    c->tap_part = (int64_t *)(c->part + kernel);
    c->span_part = c->tap_part + kernel;
    return c;
}

/* All of it, for float32 or, if the layer can, for terms; NULL: no memory. */
static convt3d_correlate *make(const convt3d_plan *plan, int terms, size_t *bytes) {
    convt3d_correlate *c = allocate(plan, bytes);
    if (!c) return NULL;
    prepare_channels(plan, c);
    if (terms) c->terms = c->term_count;
    prepare_row(plan, c);
    prepare_parts(plan, c);
    convt3d_correlate_choose_cuts(plan, c);
    return c;
}

/* Whether terms are faster; for one sample and one thread, since results must not depend on
 * how many there are. */
static int prefers_terms(const convt3d_plan *plan) {
    const double better = 0.98;
    convt3d_plan one = *plan;
    size_t bytes;
    one.geometry.batch = min64(1, one.geometry.batch);
    one.threads = 1;
    convt3d_correlate *c[2] = {make(&one, 0, &bytes), make(&one, 1, &bytes)};
    int yes = c[0] && c[1] && c[1]->terms && c[1]->cycles < better * c[0]->cycles;
    free(c[0]);
    free(c[1]);
    return yes;
}

/* Bytes of packed weights: this plan's, and what any plan for the layer may want. */
static int size_packed(convt3d_plan *plan, convt3d_correlate *c) {
    const int64_t panels[5] = {plan->geometry.groups, c->panels, c->taps, c->k, c->panel};
    const int64_t terms[5] = {plan->geometry.groups * c->panels, c->term_units, c->taps,
                              c->term_blocks, convt3d_term_block_bytes(c)};
    size_t bytes;
    if (!convt3d_bytes(panels, 5, plan->geometry.element, &plan->packed_bytes) ||
        !convt3d_grow(&plan->packed_bytes, 1, CONVT3D_ALIGN))
        return 0;
    plan->packed_whole = plan->packed_bytes;
    if (!c->term_count) return 1;
    c->at_term_weights = convt3d_round_up(plan->packed_bytes);
    plan->packed_whole = c->at_term_weights;
    if (!convt3d_bytes(terms, 5, 1, &bytes) || !convt3d_grow(&plan->packed_whole, 1, bytes))
        return 0;
    if (!c->terms) return 1;
    /* Beside terms, the numbers of the task that each thread is at. */
    const int64_t stages = min64(plan->threads, convt3d_correlate_pack_tasks(plan));
    c->at_stage = plan->packed_bytes = convt3d_round_up(plan->packed_whole);
    if (!convt3d_grow(&c->stage_bytes, (size_t)c->taps,
                      (size_t)convt3d_correlate_stage_step(c) * sizeof(float)))
        return 0;
    c->stage_bytes = convt3d_round_up(c->stage_bytes);
    return convt3d_grow(&plan->packed_bytes, (size_t)stages, c->stage_bytes);
}

convt3d_status convt3d_correlate_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                         convt3d_error *err) {
    size_t bytes;
    convt3d_correlate *c = make(plan, 0, &bytes);
    if (c && c->term_count && prefers_terms(plan)) {
        free(c);
        c = make(plan, 1, &bytes);
    }
    if (!c) return convt3d_fail_nomem(err, "a plan's tables", bytes);
    plan->details = c;
    if (!convt3d_correlate_size_scratch(plan, c) || !size_packed(plan, c))
        return convt3d_fail(err, CONVT3D_OVERFLOW,
                            "the scratch of a run would take more bytes than the address space "
                            "has");
    (void)why;
    *accepted = 1;
    return CONVT3D_OK;
}

static void describe_cut(const convt3d_plan *plan, const convt3d_cut *cut, convt3d_text *text) {
    convt3d_text_add(
        text, "tile: %lld %s by %lld vectors of %d %s; %lld of %lld channels a group\n",
        (long long)cut->rows, cut->turned ? "positions" : "channels", (long long)cut->vectors,
        plan->type->lanes, cut->turned ? "channels" : "positions", (long long)cut->units,
        (long long)cut->width);
    convt3d_text_add(text,
                     "tasks: blocks of %lld x %lld result rows, %lld x %lld of them a sample and "
                     "group; slab of up to %lld x %lld rows",
                     (long long)cut->block[0], (long long)cut->block[1], (long long)cut->blocks[0],
                     (long long)cut->blocks[1], (long long)cut->slab_rows[0],
                     (long long)cut->slab_rows[1]);
    if (cut->run > 1)
        convt3d_text_add(text, "; %lld samples side by side, rows in %lld strips",
                         (long long)cut->run, (long long)cut->strips);
    if (cut->groups > 1) convt3d_text_add(text, "; %lld groups together", (long long)cut->groups);
    if (cut->unit_splits > 1) convt3d_text_add(text, "; split by channels");
    convt3d_text_add(text, "\n");
}

void convt3d_correlate_describe(const convt3d_plan *plan, convt3d_text *text) {
    const convt3d_correlate *c = plan->details;
    convt3d_text_add(text, "row: %lld %s, %s; slab rows of %lld channels by %lld elements\n",
                     (long long)c->lanes, c->lanes == 1 ? "lane" : "lanes",
                     c->clip ? "cut where taps leave the data" : "with halo", (long long)c->k,
                     (long long)c->row_length);
    convt3d_correlate_describe_terms(plan, text);
    if (convt3d_is_merged(c))
        convt3d_text_add(text, "phases: %lld x %lld x %lld of them are channels\n",
                         (long long)c->merged[0], (long long)c->merged[1], (long long)c->merged[2]);
    describe_cut(plan, &c->cut[0], text);
    if (c->cut[1].run <= 1 || memcmp(&c->cut[0], &c->cut[1], sizeof c->cut[0]) == 0) return;
    convt3d_text_add(text, "where samples lie closest in memory:\n");
    describe_cut(plan, &c->cut[1], text);
}
