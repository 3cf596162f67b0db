/* correlate_plan: lanes, taps and pieces of a row, and the size of a task.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "error.h"

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

/* Whole vectors multiplied along one row, with the halo and without. */
static void choose_clip(const convt3d_plan *plan, convt3d_correlate *c) {
    double whole = 0, cut = 0;
    for (int64_t i = 0; i < c->lanes; i++) {
        const convt3d_lane *lane = &c->lane[i];
        whole += (double)(lane->tap1 - lane->tap0) *
                 (double)convt3d_ceil_div(lane->q1 - lane->q0, plan->type->lanes);
        for (int64_t p = lane->piece0; p < lane->piece1; p++)
            cut += (double)(c->piece[p].tap1 - c->piece[p].tap0) *
                   (double)convt3d_ceil_div(c->piece[p].q1 - c->piece[p].q0, plan->type->lanes);
    }
    c->clip = cut < whole;
}

static void prepare_row(const convt3d_plan *plan, convt3d_correlate *c) {
    const convt3d_axis *axis = &plan->geometry.axis[2];
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
    const convt3d_axis *axis = &plan->geometry.axis[2];
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

/* ---- Tasks ---------------------------------------------------------------------- */

static int64_t sources_of(const convt3d_plan *plan, int a, int64_t results) {
    const convt3d_axis *axis = &plan->geometry.axis[a];
    return plan->direction == CONVT3D_FORWARD ? convt3d_inputs_of_outputs(axis, results)
                                              : convt3d_outputs_of_inputs(axis, results);
}

static void set_block(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut, int a,
                      int64_t block) {
    cut->block[a] = block;
    cut->blocks[a] = convt3d_ceil_div(c->results[a], block);
    cut->slab_rows[a] = sources_of(plan, a, block);
}

static double slab_bytes(const convt3d_plan *plan, const convt3d_correlate *c,
                         const convt3d_cut *cut) {
    return (double)cut->slab_rows[0] * (double)cut->slab_rows[1] * (double)c->k *
           (double)cut->row_length * (double)cut->run * (double)plan->geometry.element;
}

/* Halves the blocks, depth first, until the slab fits the cache and there is
 * enough to share out.  Results don't depend on it. */
static void choose_blocks(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut,
                          double cache) {
    const convt3d_geometry *g = &plan->geometry;
    for (int a = 0; a < 2; a++) set_block(plan, c, cut, a, c->results[a]);
    for (;;) {
        double tasks =
            (double)cut->runs * (double)g->groups * (double)cut->blocks[0] * (double)cut->blocks[1];
        int large = slab_bytes(plan, c, cut) > cache, few = tasks < 4.0 * plan->threads;
        /* Blocks of one stride share all of their source rows: cut them last. */
        int64_t least[2] = {1, 1};
        if (plan->direction == CONVT3D_FORWARD) {
            for (int a = 0; a < 2; a++) least[a] = min64(g->axis[a].stride, c->results[a]);
        }
        int a = cut->block[0] > least[0] ? 0 : cut->block[1] > least[1] ? 1 : -1;
        if (a < 0 && large) a = cut->block[0] > 1 ? 0 : cut->block[1] > 1 ? 1 : -1;
        if (a < 0 || !(large || few)) break;
        int64_t half = (cut->block[a] + 1) / 2, unit = cut->block[a] > least[a] ? least[a] : 1;
        half = convt3d_ceil_div(half, unit) * unit;
        set_block(plan, c, cut, a, half < cut->block[a] ? half : cut->block[a] - unit);
    }
    int64_t tasks = cut->runs * g->groups * cut->strips * cut->blocks[0] * cut->blocks[1];
    cut->m_splits = tasks > 0 && tasks < 2 * plan->threads
                        ? min64(c->m_blocks, convt3d_ceil_div(2 * plan->threads, tasks))
                        : 1;
}

static int folds_rows(const convt3d_plan *plan) {
    return plan->direction == CONVT3D_FORWARD && plan->geometry.axis[2].mode != CONVT3D_ZEROS;
}

static void set_strips(const convt3d_correlate *c, convt3d_cut *cut, int64_t strips) {
    enum {
        UNIT = 8 /* positions: whole vectors, whatever the run */
    };
    int64_t strip = convt3d_ceil_div(convt3d_ceil_div(c->positions, strips), UNIT) * UNIT;
    const convt3d_part *last = &c->part[c->parts - 1];
    cut->strip = c->lane_length;
    cut->strips = 1;
    cut->row_length = c->row_length;
    if (strips == 1 || strip >= c->positions) return;
    cut->strip = strip;
    cut->strips = convt3d_ceil_div(c->positions, strip);
    cut->row_length = last->before + last->reach + c->parts * strip;
}

/* Samples side by side: about two cache lines of them, so that most lines are
 * written whole, in equal shares, and strips of rows so that a few result rows'
 * sources fit the shared cache.  Where they don't, fewer samples. */
static void choose_run(const convt3d_plan *plan, const convt3d_correlate *c, convt3d_cut *cut,
                       double cache) {
    enum {
        ROWS = 4,  /* result rows along the height */
        STRIP = 16 /* the fewest positions */
    };
    const convt3d_geometry *g = &plan->geometry;
    const int64_t line = CONVT3D_RUN_BYTES / (int64_t)g->element;
    const int64_t run = min64(max64(g->batch, 1), line);
    const int64_t depth =
        plan->direction == CONVT3D_FORWARD ? min64(g->axis[0].stride, c->results[0]) : 1;
    const double rows = (double)sources_of(plan, 0, depth) *
                        (double)sources_of(plan, 1, min64(ROWS, c->results[1])) * (double)c->k *
                        (double)g->element;
    double one;
    int64_t most = line;
    set_strips(c, cut, 1);
    for (int64_t n = 2; !folds_rows(plan) && rows * (double)run * (double)cut->row_length > cache &&
                        c->positions / n >= STRIP;
         n *= 2)
        set_strips(c, cut, n);
    one = (double)sources_of(plan, 0, 1) * (double)sources_of(plan, 1, 1) * (double)c->k *
              (double)cut->row_length +
          (double)c->lanes * (double)c->rows * (double)cut->strip;
    if (folds_rows(plan)) one += (double)g->axis[2].full;
    while (most > 1 && (double)most * one * (double)g->element > cache) most--;
    cut->runs = convt3d_ceil_div(g->batch, most);
    cut->run = cut->runs ? convt3d_ceil_div(g->batch, cut->runs) : 1;
}

/* A core's own cache holds the slab of one sample; that of a run may take more,
 * since its rows are read from one end to the other. */
static void choose_cuts(const convt3d_plan *plan, convt3d_correlate *c) {
    const double own = 768 * 1024, shared = 3072 * 1024;
    c->cut[0].run = 1;
    c->cut[0].runs = plan->geometry.batch;
    set_strips(c, &c->cut[0], 1);
    choose_blocks(plan, c, &c->cut[0], own);
    choose_run(plan, c, &c->cut[1], shared);
    choose_blocks(plan, c, &c->cut[1], c->cut[1].run > 1 ? shared : own);
    int64_t tile = max64(c->rows * (int64_t)plan->geometry.element, 1);
    c->together = min64(c->m_blocks, convt3d_ceil_div(CONVT3D_CHANNEL_BYTES, tile));
    if ((double)c->lanes * (double)tile * (double)c->lane_length * (double)c->together > 128 * 1024)
        c->together = 1;
}

/* Rows of the slab and of the tile.  Rows of runs are an odd number of cache
 * lines apart, or the channels of one position would share a cache's set. */
static int set_pitches(const convt3d_plan *plan, convt3d_cut *cut) {
    const convt3d_type_kernels *type = plan->type;
    const int64_t line = CONVT3D_ALIGN / (int64_t)plan->geometry.element;
    const int64_t slack = (int64_t)type->vectors * type->lanes;
    if (max64(cut->row_length, cut->strip) > (INT64_MAX - 4 * (slack + line)) / cut->run) return 0;
    cut->row_pitch = cut->row_length * cut->run;
    if (cut->run > 1) cut->row_pitch = (convt3d_ceil_div(cut->row_pitch, line) | 1) * line;
    cut->tile_pitch = convt3d_ceil_div(cut->strip * cut->run, type->lanes) * type->lanes + slack;
    return 1;
}

/* One part of the scratch: the larger of what the two cuts need. */
static int size_part(const convt3d_plan *plan, const int64_t sizes[2][4], int64_t slack,
                     size_t *total) {
    size_t bytes[2] = {0, 0}, element = plan->geometry.element;
    for (int i = 0; i < 2; i++) {
        if (!convt3d_bytes(sizes[i], 4, element, &bytes[i])) return 0;
    }
    if (!convt3d_grow(total, 1, bytes[0] > bytes[1] ? bytes[0] : bytes[1]) ||
        !convt3d_grow(total, (size_t)slack, element))
        return 0;
    *total = convt3d_round_up(*total);
    return 1;
}

/* Lays out a thread's scratch: slab, tile rows, full row, zeros, segments, the
 * two lists of source rows. */
static int size_scratch(const convt3d_plan *plan, convt3d_correlate *c) {
    const convt3d_type_kernels *type = plan->type;
    const convt3d_cut *one = &c->cut[0], *run = &c->cut[1];
    size_t total = 0;
    int64_t slack = (int64_t)type->vectors * type->lanes; /* tiles read and write past ends */
    int64_t full = folds_rows(plan) ? plan->geometry.axis[2].full : 0;
    if (!set_pitches(plan, &c->cut[0]) || !set_pitches(plan, &c->cut[1])) return 0;
    const int64_t slab[2][4] = {{one->slab_rows[0], one->slab_rows[1], c->k, one->row_pitch},
                                {run->slab_rows[0], run->slab_rows[1], c->k, run->row_pitch}};
    if (!size_part(plan, slab, slack, &total)) return 0;
    c->at_tile = total;
    const int64_t lanes = max64(c->lanes, 1);
    const int64_t tile[2][4] = {{lanes, c->together, c->rows, one->tile_pitch},
                                {lanes, 1, c->rows, run->tile_pitch}};
    if (!size_part(plan, tile, 0, &total)) return 0;
    c->at_full = total;
    const int64_t row[2][4] = {{1, 1, 1, full}, {1, 1, run->run, full}};
    if (!size_part(plan, row, 0, &total)) return 0;
    c->at_zero = total;
    if (!convt3d_grow(&total, CONVT3D_ZEROS_LENGTH, plan->geometry.element)) return 0;
    c->at_segments = total = convt3d_round_up(total);
    if (!convt3d_grow(&total, CONVT3D_SEGMENTS, sizeof(convt3d_segment))) return 0;
    for (int a = 0; a < 2; a++) {
        c->at_list[a] = total = convt3d_round_up(total);
        if (!convt3d_grow(&total, (size_t)max64(one->slab_rows[a], run->slab_rows[a]),
                          sizeof(int64_t)))
            return 0;
    }
    c->thread_bytes = convt3d_round_up(total);
    return 1;
}

/* ---- The whole -------------------------------------------------------------------- */

static void prepare_channels(const convt3d_plan *plan, convt3d_correlate *c) {
    const convt3d_geometry *g = &plan->geometry;
    int forward = plan->direction == CONVT3D_FORWARD;
    c->m = forward ? g->group_outputs : g->group_inputs;
    c->k = forward ? g->group_inputs : g->group_outputs;
    /* 33 channels on tiles of up to 12 rows are three of 11, not 12 + 12 + 9. */
    c->m_blocks = convt3d_ceil_div(c->m, plan->type->rows);
    c->rows = convt3d_ceil_div(c->m, c->m_blocks);
    c->taps = g->axis[0].kernel * g->axis[1].kernel * g->axis[2].kernel;
    for (int a = 0; a < 2; a++) {
        c->results[a] = forward ? g->axis[a].out : g->axis[a].in;
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

convt3d_status convt3d_correlate_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                         convt3d_error *err) {
    size_t bytes;
    convt3d_correlate *c = allocate(plan, &bytes);
    if (!c) return convt3d_fail_nomem(err, "a plan's tables", bytes);
    prepare_channels(plan, c);
    prepare_row(plan, c);
    prepare_parts(plan, c);
    choose_cuts(plan, c);
    plan->details = c;
    const int64_t packed[5] = {plan->geometry.groups, c->m_blocks, c->taps, c->k, c->rows};
    if (!size_scratch(plan, c) ||
        !convt3d_bytes(packed, 5, plan->geometry.element, &plan->packed_bytes) ||
        !convt3d_grow(&plan->packed_bytes, 1, CONVT3D_ALIGN))
        return convt3d_fail(err, CONVT3D_OVERFLOW,
                            "the scratch of a run would take more bytes than the address space "
                            "has");
    (void)why;
    *accepted = 1;
    return CONVT3D_OK;
}

void convt3d_correlate_describe(const convt3d_plan *plan, convt3d_text *text) {
    const convt3d_correlate *c = plan->details;
    convt3d_text_add(text,
                     "tile: %lld channels by up to %d vectors of %d; %lld of them cover %lld "
                     "channels of a group\n",
                     (long long)c->rows, plan->type->vectors, plan->type->lanes,
                     (long long)c->m_blocks, (long long)c->m);
    convt3d_text_add(text, "row: %lld %s, %s; slab rows of %lld channels by %lld elements\n",
                     (long long)c->lanes, c->lanes == 1 ? "lane" : "lanes",
                     c->clip ? "cut where taps leave the data" : "with halo", (long long)c->k,
                     (long long)c->row_length);
    for (int i = 0; i < 2 && (i == 0 || c->cut[1].run > 1); i++) {
        const convt3d_cut *cut = &c->cut[i];
        if (i)
            convt3d_text_add(text,
                             "runs of %lld samples, rows in %lld strips: ", (long long)cut->run,
                             (long long)cut->strips);
        convt3d_text_add(text,
                         "%s of %lld x %lld result rows, %lld x %lld of them a %s and "
                         "group%s; slab of up to %lld x %lld rows\n",
                         i ? "blocks" : "tasks: blocks", (long long)cut->block[0],
                         (long long)cut->block[1], (long long)cut->blocks[0],
                         (long long)cut->blocks[1], i ? "run" : "sample",
                         cut->m_splits > 1 ? ", split by channels" : "",
                         (long long)cut->slab_rows[0], (long long)cut->slab_rows[1]);
    }
}
