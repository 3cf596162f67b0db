/* correlate: a task of forward or backward_input: list, gather, multiply, store.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "error.h"

#include <string.h>

/* ---- Depth and height: which source rows, through which taps ---------------------- */

/* Both directions' view of "what meets result row r on this axis". */
typedef struct pairs {
    convt3d_meet meet;
    const convt3d_axis *axis;
    int forward;
    int64_t k, source, result;
} pairs;

static pairs pairs_of(const convt3d_task *t, int a, int64_t result) {
    pairs p = {.axis = &t->plan->geometry.axis[a],
               .forward = t->plan->direction == CONVT3D_FORWARD,
               .k = -1,
               .result = result};
    if (p.forward) p.meet = convt3d_meet_first(p.axis, result);
    return p;
}

static int next_pair(pairs *p) {
    if (p->forward) {
        int more = convt3d_meet_next(&p->meet);
        p->k = p->meet.k;
        p->source = p->meet.i;
        return more;
    }
    while (++p->k < p->axis->kernel) {
        p->source = convt3d_fold(p->axis, p->result * p->axis->stride + p->k * p->axis->dilation);
        if (p->source >= 0) return 1;
    }
    return 0;
}

static void list_sources(convt3d_task *t, int a) {
    t->listed[a] = 0;
    for (int64_t result = t->first[a]; result < t->end[a]; result++) {
        if (convt3d_stopped(&t->call->job, t->thread)) return;
        pairs p = pairs_of(t, a, result);
        while (next_pair(&p)) t->listed[a] = convt3d_list_add(t->list[a], t->listed[a], p.source);
    }
}

/* The place of a source row in the slab, on one axis. */
static int64_t place(const convt3d_task *t, int a, int64_t source) {
    return convt3d_list_place(t->list[a], t->listed[a], source);
}

/* ---- Multiplying --------------------------------------------------------------------- */

/* Runs the segments gathered so far over all positions of a piece. */
static void multiply(const convt3d_task *t, int64_t start, const convt3d_piece *piece,
                     char *lane_tile, const char *weights, int64_t count, int accumulate) {
    const convt3d_type_kernels *type = t->type;
    const int64_t element = (int64_t)t->plan->geometry.element;
    const int64_t end = (piece->q1 - start) * t->run;
    convt3d_tile tile = {.a = weights,
                         .ldb = t->cut->row_pitch,
                         .ldc = t->cut->tile_pitch,
                         .segments = t->segment,
                         .count = count,
                         .accumulate = accumulate};
    int tiles = 0;
    for (int64_t x = (piece->q0 - start) * t->run; x < end;) {
        if (++tiles % 64 == 0 && convt3d_stopped(&t->call->job, t->thread)) return;
        int64_t vectors = min64(convt3d_ceil_div(end - x, type->lanes), type->vectors);
        tile.b = t->slab + x * element;
        tile.c = lane_tile + x * element;
        type->gemm[t->c->rows - 1][vectors - 1](&tile);
        x += vectors * type->lanes;
    }
}

/* One piece of a lane of result row (d, h): gathers a segment for each tap,
 * always in the same order, and multiplies whenever the list is full. */
static void run_piece(const convt3d_task *t, const convt3d_lane *lane, const convt3d_piece *piece,
                      char *lane_tile, const char *weights, int64_t d, int64_t h) {
    const convt3d_correlate *c = t->c;
    const convt3d_axis *axis = t->plan->geometry.axis;
    const int64_t start = max64(lane->q0, t->q0);
    int64_t count = 0;
    int accumulate = 0;
    pairs depth = pairs_of(t, 0, d);
    while (next_pair(&depth)) {
        int64_t slab_d = place(t, 0, depth.source) * t->listed[1];
        pairs height = pairs_of(t, 1, h);
        while (next_pair(&height)) {
            int64_t row = slab_d + place(t, 1, height.source);
            int64_t kernel_row = (depth.k * axis[1].kernel + height.k) * axis[2].kernel;
            for (int64_t i = piece->tap0; i < piece->tap1; i++) {
                int64_t x = c->tap[i].offset + start - lane->q0;
                if (count == CONVT3D_SEGMENTS) {
                    if (convt3d_stopped(&t->call->job, t->thread)) return;
                    multiply(t, start, piece, lane_tile, weights, count, accumulate);
                    accumulate = 1;
                    count = 0;
                }
                t->segment[count++] = (convt3d_segment){
                    .a = (kernel_row + c->tap[i].k) * c->k * c->rows,
                    .b = row * c->k * t->cut->row_pitch +
                         (x - convt3d_correlate_shift(t, c->tap_part[i])) * t->run,
                    .k = c->k};
            }
        }
    }
    if (count || !accumulate) /* no taps at all: zeros */
        multiply(t, start, piece, lane_tile, weights, count, accumulate);
}

static void run_lane(const convt3d_task *t, int64_t index, char *tile, const char *weights,
                     int64_t d, int64_t h) {
    const convt3d_correlate *c = t->c;
    const convt3d_lane *lane = &c->lane[index];
    const convt3d_piece whole = {lane->q0, lane->q1, lane->tap0, lane->tap1};
    const convt3d_piece *pieces = t->by_pieces ? &c->piece[lane->piece0] : &whole;
    const int64_t count = t->by_pieces ? lane->piece1 - lane->piece0 : 1;
    /* Rising order: a tile may write beyond its piece, never before it. */
    for (int64_t i = 0; i < count; i++) {
        convt3d_piece piece = pieces[i];
        piece.q0 = max64(piece.q0, t->q0);
        piece.q1 = min64(piece.q1, t->q1);
        if (piece.q0 < piece.q1) run_piece(t, lane, &piece, tile, weights, d, h);
    }
}

/* ---- The task ------------------------------------------------------------------------------ */

static const char *weights_of(const convt3d_task *t, int64_t block) {
    const convt3d_correlate *c = t->c;
    return (const char *)t->call->packed + CONVT3D_ALIGN +
           (t->group * c->m_blocks + block) * c->taps * c->k * c->rows *
               (int64_t)t->plan->geometry.element;
}

/* The result rows of one stride phase, for blocks of channels that are stored
 * together. */
static void run_rows(const convt3d_task *t, int64_t block0, int64_t block1, const int64_t phase[2],
                     const int64_t apart[2]) {
    const convt3d_correlate *c = t->c;
    const int64_t tile = c->rows * t->cut->tile_pitch * (int64_t)t->plan->geometry.element;
    int64_t m0 = block0 * c->rows, m1 = min64(block1 * c->rows, c->m);
    for (int64_t d = t->first[0] + phase[0]; d < t->end[0]; d += apart[0]) {
        for (int64_t h = t->first[1] + phase[1]; h < t->end[1]; h += apart[1]) {
            for (int64_t block = block0; block < block1; block++) {
                if (convt3d_stopped(&t->call->job, t->thread)) return;
                const char *weights = weights_of(t, block);
                for (int64_t i = 0; i < c->lanes; i++)
                    run_lane(t, i, t->tile + (i * t->together + block - block0) * tile, weights, d,
                             h);
            }
            convt3d_correlate_store(t, m0, m1, d, h);
        }
    }
}

/* Rows of one stride phase share their taps, and so the weights in cache. */
static void run_phases(const convt3d_task *t) {
    int64_t apart[2] = {1, 1}, phase[2];
    for (int a = 0; a < 2 && t->plan->direction == CONVT3D_FORWARD; a++)
        apart[a] = min64(t->plan->geometry.axis[a].stride, t->cut->block[a]);
    for (phase[0] = 0; phase[0] < apart[0]; phase[0]++) {
        for (phase[1] = 0; phase[1] < apart[1]; phase[1]++) {
            for (int64_t block = t->block0; block < t->block1; block += t->together)
                run_rows(t, block, min64(block + t->together, t->block1), phase, apart);
        }
    }
}

/* Runs of samples where these are next to each other in what is read or
 * written; else one sample at a time. */
static const convt3d_cut *cut_of(const convt3d_call *call) {
    const convt3d_correlate *c = call->plan->details;
    int forward = call->plan->direction == CONVT3D_FORWARD;
    const convt3d_view *to = forward ? &call->output : &call->grad_input;
    const convt3d_view *from = forward ? &call->input : &call->output;
    int side = convt3d_correlate_closest(to, 0) || convt3d_correlate_closest(from, 0);
    return &c->cut[c->cut[1].run > 1 && side];
}

static void run_task(void *arg, int64_t index, int thread) {
    convt3d_call *call = arg;
    const convt3d_plan *plan = call->plan;
    const convt3d_correlate *c = plan->details;
    const convt3d_cut *cut = cut_of(call);
    char *scratch = call->scratch + (size_t)thread * c->thread_bytes;
    int forward = plan->direction == CONVT3D_FORWARD;
    convt3d_task t = {.plan = plan,
                      .c = c,
                      .cut = cut,
                      .type = plan->type,
                      .call = call,
                      .from = forward ? &call->input : &call->output,
                      .to = forward ? &call->output : &call->grad_input,
                      .thread = thread,
                      .by_pieces = c->clip || call->packed->nonfinite,
                      .slab = scratch,
                      .tile = scratch + c->at_tile,
                      .full = scratch + c->at_full,
                      .zero = scratch + c->at_zero,
                      .segment = (convt3d_segment *)(scratch + c->at_segments)};
    int64_t split = index % cut->m_splits, rest = index / cut->m_splits;
    t.block0 = c->m_blocks * split / cut->m_splits;
    t.block1 = c->m_blocks * (split + 1) / cut->m_splits;
    for (int a = 1; a >= 0; a--) {
        t.first[a] = rest % cut->blocks[a] * cut->block[a];
        t.end[a] = min64(t.first[a] + cut->block[a], c->results[a]);
        rest /= cut->blocks[a];
        t.list[a] = (int64_t *)(scratch + c->at_list[a]);
        list_sources(&t, a);
    }
    t.q0 = cut->strips == 1 ? INT64_MIN : c->first_position + rest % cut->strips * cut->strip;
    t.q1 = cut->strips == 1 ? INT64_MAX : t.q0 + cut->strip;
    rest /= cut->strips;
    t.group = rest % plan->geometry.groups;
    t.sample = rest / plan->geometry.groups * cut->run;
    t.run = min64(cut->run, plan->geometry.batch - t.sample);
    t.together = cut->run == 1 && convt3d_correlate_across(&t, t.to) ? c->together : 1;
    memset(t.zero, 0, CONVT3D_ZEROS_LENGTH * plan->geometry.element);
    if (convt3d_correlate_gather(&t)) run_phases(&t);
}

/* ---- The algorithm ------------------------------------------------------------------------- */

static void run(convt3d_call *call) {
    const convt3d_cut *cut = cut_of(call);
    int64_t blocks = cut->blocks[0] * cut->blocks[1] * cut->strips * cut->m_splits;
    convt3d_parallel(&call->job, 1, cut->runs * call->plan->geometry.groups * blocks, run_task,
                     call);
}

static int scratch(const convt3d_plan *plan, int32_t threads, size_t *bytes) {
    const convt3d_correlate *c = plan->details;
    *bytes = 0;
    return convt3d_grow(bytes, (size_t)threads, c->thread_bytes);
}

static int64_t pack_tasks(const convt3d_plan *plan) {
    const convt3d_correlate *c = plan->details;
    return plan->geometry.groups * c->m_blocks;
}

/* Packed weights: [group][block][kD][kH][kW][k][rows].  One source channel at a
 * time, so that the taps that lie together are read together. */
static void pack(const convt3d_plan *plan, const convt3d_view *w, convt3d_packed *packed,
                 int64_t index) {
    const convt3d_correlate *c = plan->details;
    const convt3d_geometry *g = &plan->geometry;
    const int64_t element = (int64_t)g->element;
    const int64_t kd = g->axis[0].kernel, kh = g->axis[1].kernel, kw = g->axis[2].kernel;
    const int64_t per_tap = c->k * c->rows;
    int forward = plan->direction == CONVT3D_FORWARD;
    int64_t group = index / c->m_blocks, m0 = index % c->m_blocks * c->rows;
    int64_t m_stride = w->stride[forward ? 1 : 0], k_stride = w->stride[forward ? 0 : 1];
    char *to = (char *)packed + CONVT3D_ALIGN + index * c->taps * per_tap * element;
    const char *from = w->data + (group * g->group_inputs * w->stride[0] + m0 * m_stride) * element;
    int64_t rows = min64(c->rows, c->m - m0);
    for (int64_t k = 0; k < c->k; k++) {
        for (int64_t d = 0; d < kd; d++) {
            for (int64_t h = 0; h < kh; h++)
                plan->type->transpose(
                    to + ((d * kh + h) * kw * per_tap + k * c->rows) * element, per_tap,
                    from + (k * k_stride + d * w->stride[2] + h * w->stride[3]) * element, m_stride,
                    w->stride[4], rows, c->rows, kw);
        }
    }
    if (plan->type->nonfinite(to, c->taps * per_tap))
        __atomic_store_n(&packed->nonfinite, 1, __ATOMIC_RELAXED);
}

const convt3d_algorithm convt3d_engine_correlate = {
    .name = "engine",
    .prepare = convt3d_correlate_prepare,
    .scratch = scratch,
    .run = run,
    .pack_tasks = pack_tasks,
    .pack = pack,
    .describe = convt3d_correlate_describe,
};
