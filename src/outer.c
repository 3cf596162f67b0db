/* outer: the tasks of backward_weight: pack, multiply, add the chunks up.
 * SPDX-License-Identifier: MIT */
#include "outer.h"
#include "tiles.h"

#include <string.h>

typedef convt3d_outer_task task;

static int64_t element_of(const task *t) {
    return (int64_t)t->plan->geometry.element;
}

/* The positions that all of a run of taps, 'period' apart, carry to real data. */
typedef struct range {
    int64_t i0, i1;
} range;

static range range_of(const task *t, int64_t tap, int64_t count, int64_t period) {
    range r = {0, t->plan->geometry.axis[2].in};
    for (int64_t j = 0; j < count; j++) {
        r.i0 = max64(r.i0, t->c->tap[tap + j * period].real0);
        r.i1 = min64(r.i1, t->c->tap[tap + j * period].real1);
    }
    return r;
}

/* What 'common' leaves of one tap's positions, before it and after it: all before, if
 * there is no common part. */
static void leave(range own, range common, range left[2]) {
    int some = common.i0 < common.i1;
    left[0] = (range){own.i0, some ? common.i0 : own.i1};
    left[1] = (range){some ? common.i1 : own.i1, own.i1};
}

/* ---- Tiles ------------------------------------------------------------------------------ */

enum {
    TERM_ROWS = 8, /* of the tiles of a plan with terms, for blocks that don't fit their range */
};

/* Taps tap, tap + 1 ... of one kernel row, on positions r, for block 'block' of A: the
 * segments hold the rows that meet. */
static void multiply(const task *t, int64_t block, int64_t line, int64_t tap, int64_t taps, range r,
                     int64_t count) {
    const convt3d_outer *c = t->c;
    const convt3d_type_kernels *type = t->plan->type;
    const int64_t element = element_of(t), kernel_w = t->plan->geometry.axis[2].kernel;
    const convt3d_side *a = c->x_is_a ? &c->x : &c->dy;
    const int64_t channels = min64(c->rows, a->channels - block * c->rows);
    const int64_t rows = c->tap_rows ? taps : channels;
    const int64_t at_x = r.i0 * c->x.step, at_dy = r.i0 * c->dy.step + c->tap[tap].offset;
    const int64_t at_a = (block - t->block0) * c->rows * a->positions + (c->x_is_a ? at_x : at_dy);
    const char *b = (c->x_is_a ? t->dy : t->x) + (c->x_is_a ? at_dy : at_x) * c->b_length * element;
    char *sums = t->sums + ((block - t->block0) * c->block_sums +
                            (line * kernel_w + tap) * c->rows * c->b_length) *
                               element;
    convt3d_tile tile = {.a = (c->x_is_a ? t->x : t->dy) + at_a * element,
                         .a_step = a->step,
                         .a_row = c->tap_rows ? t->plan->geometry.axis[2].dilation : a->positions,
                         .b_step = c->b_length * (c->x_is_a ? c->dy.step : c->x.step),
                         .c_row = c->b_length,
                         .segments = t->segment,
                         .count = count,
                         .accumulate = 1};
    const int64_t vectors = c->b_length / type->lanes;
    const int64_t tiles = convt3d_ceil_div(vectors, c->vectors);
    const char *from = tile.a;
    const int64_t high = c->terms ? min64(rows, TERM_ROWS) : rows;
    for (int64_t i = 0; i < count; i++) t->segment[i].k = r.i1 - r.i0;
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t start = convt3d_part_start(vectors, tiles, i) * type->lanes;
        const int64_t end = convt3d_part_start(vectors, tiles, i + 1) * type->lanes;
        tile.b = b + start * element;
        for (int64_t row = 0; row < rows; row += high) {
            tile.a = from + row * tile.a_row * element;
            tile.c = sums + (row * c->b_length + start) * element;
            convt3d_asks_take(t->asks, &tile);
            type->gemm_apart[min64(high, rows - row) - 1][(end - start) / type->lanes - 1](&tile);
        }
    }
}

/* A block's taps of one kernel row: each, or all at once where they have positions in
 * common, and each on what is left of its own. */
static void multiply_line(const task *t, int64_t block, int64_t line, int64_t count) {
    const int64_t kernel = t->plan->geometry.axis[2].kernel;
    const int64_t most = max64(t->c->tap_rows, 1);
    for (int64_t tap = 0; tap < kernel; tap += most) {
        const int64_t taps = min64(most, kernel - tap);
        const range common = range_of(t, tap, taps, 1);
        if (common.i0 < common.i1) multiply(t, block, line, tap, taps, common, count);
        for (int64_t j = 0; j < taps && taps > 1; j++) {
            range left[2];
            leave(range_of(t, tap + j, 1, 1), common, left);
            for (int side = 0; side < 2; side++) {
                if (left[side].i0 < left[side].i1)
                    multiply(t, block, line, tap + j, 1, left[side], count);
            }
        }
    }
}

/* ---- Dots --------------------------------------------------------------------------------- */

/* 'taps' taps of one phase, 'period' apart, on positions r, for one pair of channels. */
static void dot(const task *t, int64_t pair, int64_t line, int64_t tap, int64_t taps,
                int64_t period, range r, int64_t count) {
    const convt3d_outer *c = t->c;
    const convt3d_type_kernels *type = t->plan->type;
    const convt3d_axis *axis = &t->plan->geometry.axis[2];
    const int64_t per_group = c->x.channels * c->dy.channels, group = pair / per_group;
    const int64_t ci = group * c->x.channels + pair % per_group / c->dy.channels;
    const int64_t co = group * c->dy.channels + pair % per_group % c->dy.channels;
    const convt3d_dot work = {
        .x = t->x + (ci * c->x.positions + r.i0) * element_of(t),
        .y = t->dy + (co * c->dy.positions + c->tap[tap].offset + r.i0) * element_of(t),
        .y_row = period * axis->dilation / axis->stride,
        .sums = t->sums +
                (pair * c->block_sums + (line * axis->kernel + tap) * type->lanes) * element_of(t),
        .sums_row = period * type->lanes,
        .length = r.i1 - r.i0,
        .segments = t->segment,
        .count = count};
    if (r.i0 < r.i1) type->dot[taps - 1](&work);
}

static void dot_line(const task *t, int64_t pair, int64_t line, int64_t count) {
    const convt3d_axis *axis = &t->plan->geometry.axis[2];
    const int64_t period = convt3d_tap_period(axis);
    for (int64_t first = 0; first < min64(period, axis->kernel); first++) {
        for (int64_t tap = first; tap < axis->kernel; tap += CONVT3D_DOTS * period) {
            const int64_t taps = min64(CONVT3D_DOTS, convt3d_ceil_div(axis->kernel - tap, period));
            const range whole = {0, axis->in};
            const range common = t->clip ? range_of(t, tap, taps, period) : whole;
            dot(t, pair, line, tap, taps, period, common, count);
            for (int64_t j = 0; j < taps && taps > 1 && t->clip; j++) {
                range left[2];
                leave(range_of(t, tap + j * period, 1, 1), common, left);
                for (int side = 0; side < 2; side++)
                    dot(t, pair, line, tap + j * period, 1, period, left[side], count);
            }
        }
    }
}

/* ---- A task -----------------------------------------------------------------------------------
 */

/* A segment for each x row of the block that taps (kd, kh) carry to a dy row. */
static int64_t list_segments(const task *t, int64_t kd, int64_t kh) {
    const convt3d_outer *c = t->c;
    const convt3d_axis *axis = t->plan->geometry.axis;
    const int64_t x_row = convt3d_outer_row(t, &c->x), dy_row = convt3d_outer_row(t, &c->dy);
    const int64_t height = t->end[1] - t->first[1];
    int64_t count = 0;
    for (int64_t d = 0; d < t->end[0] - t->first[0]; d++) {
        const int64_t plane = t->meets[0][d * axis[0].kernel + kd];
        for (int64_t h = 0; h < height && plane >= 0; h++) {
            const int64_t row = t->meets[1][h * axis[1].kernel + kh];
            const int64_t x = (d * height + h) * x_row, dy = (plane * t->listed[1] + row) * dy_row;
            int a_is_x = c->dots || c->x_is_a;
            if (row >= 0)
                t->segment[count++] = (convt3d_segment){.a = a_is_x ? x : dy, .b = a_is_x ? dy : x};
        }
    }
    return count;
}

/* The x rows first..end, packed, with all that they meet; 0 if the run was stopped. */
static int run_block(task *t) {
    const convt3d_axis *axis = t->plan->geometry.axis;
    for (int64_t kd = 0; kd < axis[0].kernel; kd++) {
        for (int64_t kh = 0; kh < axis[1].kernel; kh++) {
            const int64_t line = kd * axis[1].kernel + kh, count = list_segments(t, kd, kh);
            const int64_t blocks = t->c->dots ? t->groups * t->c->blocks : t->block1;
            for (int64_t block = t->block0; block < blocks && count; block++) {
                if (convt3d_stopped(&t->call->job, t->thread)) return 0;
                if (t->c->dots)
                    dot_line(t, block, line, count);
                else
                    multiply_line(t, block, line, count);
            }
        }
    }
    return 1;
}

/* The block of x rows after the task's, of the same planes or the next; 0: there is none. */
static int next_block(const task *t, int64_t planes_end, int64_t first[2], int64_t end[2]) {
    const convt3d_outer *c = t->c;
    const int64_t height = t->plan->geometry.axis[1].in;
    const int more = t->end[1] < height; /* of the same planes */
    first[0] = more ? t->first[0] : t->end[0];
    end[0] = more ? t->end[0] : min64(first[0] + c->block[0], planes_end);
    first[1] = more ? t->end[1] : 0;
    end[1] = min64(first[1] + c->block[1], height);
    return first[0] < planes_end && first[1] < height;
}

static int run_chunk(task *t, int64_t chunk) {
    const convt3d_outer *c = t->c;
    const int64_t planes_end = convt3d_part_start(c->planes, c->chunks, chunk + 1);
    int64_t first[2], end[2];
    t->first[0] = t->end[0] = convt3d_part_start(c->planes, c->chunks, chunk);
    t->end[1] = t->plan->geometry.axis[1].in;
    for (int more = next_block(t, planes_end, first, end); more;) {
        memcpy(t->first, first, sizeof first);
        memcpy(t->end, end, sizeof end);
        int fit = 0;
        if (t->term_x && !convt3d_outer_pack_terms(t, &fit)) return 0;
        if (!fit && !convt3d_outer_pack(t)) return 0;
        more = next_block(t, planes_end, first, end);
        if (more && t->asks) convt3d_outer_ask(t, first, end);
        if (!(fit ? convt3d_outer_run_terms(t) : run_block(t))) return 0;
    }
    return 1;
}

static void run_task(void *arg, int64_t index, int thread) {
    convt3d_call *call = arg;
    const convt3d_plan *plan = call->plan;
    const convt3d_outer *c = plan->details;
    const int64_t split = index % c->a_splits, rest = index / c->a_splits, chunk = rest % c->chunks;
    char *scratch = convt3d_outer_scratch(call, thread);
    int64_t *table = (int64_t *)(scratch + c->at_tables);
    task t = {.plan = plan,
              .c = c,
              .call = call,
              .thread = thread,
              .chunk = chunk,
              .group = rest / c->chunks * c->groups,
              .block0 = convt3d_part_start(c->blocks, c->a_splits, split),
              .block1 = convt3d_part_start(c->blocks, c->a_splits, split + 1),
              .x = scratch,
              .dy = scratch + c->at_dy,
              .segment = (convt3d_segment *)(scratch + c->at_segments)};
    t.groups = min64(c->groups, plan->geometry.groups - t.group);
    for (int a = 0; a < 2; a++) {
        t.list[a] = table;
        t.meets[a] = table += c->dy_rows[a];
        table += c->block[a] * plan->geometry.axis[a].kernel;
    }
    if (convt3d_outer_use_terms(c)) {
        t.term_x = scratch + c->at_term_x;
        t.term_dy = scratch + c->at_term_dy;
        t.stage = (float *)(scratch + c->at_stage);
    }
    if (c->asks && call->output.stride[4] == 1) {
        t.asks = (convt3d_asks *)(scratch + c->at_asks);
        convt3d_asks_init(t.asks);
    }
    const int64_t block_bytes = c->block_sums * element_of(&t);
    const int64_t blocks = c->dots ? t.groups * c->blocks : t.block1 - t.block0;
    t.sums = c->chunks == 1
                 ? scratch + c->at_sums
                 : convt3d_outer_sums(call, chunk) + (t.group * c->blocks + t.block0) * block_bytes;
    memset(t.sums, 0, (size_t)(blocks * block_bytes));
    char state[CONVT3D_TERM_LINE];
    if (t.term_x) plan->kernels->terms->begin(state);
    const int done = run_chunk(&t, chunk);
    if (t.term_x) plan->kernels->terms->end(state);
    if (!done || c->chunks > 1) return;
    for (int64_t i = 0; i < blocks; i++)
        convt3d_outer_write(call, thread, t.group + (t.block0 + i) / c->blocks,
                            (t.block0 + i) % c->blocks, t.sums + i * block_bytes);
}

/* ---- The algorithm ------------------------------------------------------------------------- */

static void run(convt3d_call *call) {
    const convt3d_outer *c = call->plan->details;
    const int with_rows = call->bias.data && call->has_weight && c->sums_bias;
    const int bias = call->bias.data && !with_rows;
    if (with_rows) memset(call->scratch, 0, c->bias_bytes);
    if (call->has_weight) {
        convt3d_parallel(&call->job, bias ? 0.90 : 0.95, c->group_blocks * c->chunks * c->a_splits,
                         run_task, call);
        convt3d_outer_reduce(call, bias ? 0.95 : 1);
    }
    if (bias) convt3d_outer_bias(call);
    if (with_rows && !call->job.cancelled)
        convt3d_outer_store_bias(call, (const double *)call->scratch, CONVT3D_BIAS_PARTS);
}

static int scratch(const convt3d_plan *plan, int32_t threads, size_t *bytes) {
    const convt3d_outer *c = plan->details;
    *bytes = c->bias_bytes;
    return convt3d_grow(bytes, c->chunks == 1 ? 0 : (size_t)c->chunks, c->sums_bytes) &&
           convt3d_grow(bytes, (size_t)threads, c->thread_bytes);
}

const convt3d_algorithm convt3d_engine_outer = {
    .name = "engine",
    .prepare = convt3d_outer_prepare,
    .scratch = scratch,
    .run = run,
    .describe = convt3d_outer_describe,
};
