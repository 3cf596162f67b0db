/* correlate: a task of forward or backward_input: pack, multiply, store.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "error.h"

#include <string.h>

/* One task: a block of result rows of one sample, group and channel range. */
typedef struct task {
    const convt3d_plan *plan;
    const convt3d_correlate *c;
    const convt3d_type_kernels *type;
    convt3d_call *call;
    int thread, by_pieces;
    int64_t sample, group;
    int64_t first[2], end[2]; /* result rows: depth, height */
    int64_t block0, block1;   /* of result channels */
    char *slab, *tile, *full, *zero;
    convt3d_segment *segment;
    int64_t *list[2], listed[2]; /* source rows that are in the slab, rising */
} task;

/* ---- Depth and height: which source rows, through which taps ---------------------- */

/* Both directions' view of "what meets result row r on this axis". */
typedef struct pairs {
    convt3d_meet meet;
    const convt3d_axis *axis;
    int forward;
    int64_t k, source, result;
} pairs;

static pairs pairs_of(const task *t, int a, int64_t result) {
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

static void list_sources(task *t, int a) {
    t->listed[a] = 0;
    for (int64_t result = t->first[a]; result < t->end[a]; result++) {
        if (convt3d_stopped(&t->call->job, t->thread)) return;
        pairs p = pairs_of(t, a, result);
        while (next_pair(&p)) t->listed[a] = convt3d_list_add(t->list[a], t->listed[a], p.source);
    }
}

/* The place of a source row in the slab, on one axis. */
static int64_t place(const task *t, int a, int64_t source) {
    return convt3d_list_place(t->list[a], t->listed[a], source);
}

/* ---- Packing ------------------------------------------------------------------------ */

static void pack_row(const task *t, char *to, const char *from, int64_t step) {
    const convt3d_correlate *c = t->c;
    const int64_t element = (int64_t)t->plan->geometry.element;
    int64_t done = 0;
    for (int64_t i = 0; i < c->spans; i++) {
        const convt3d_span *span = &c->span[i];
        memset(to + done * element, 0, (size_t)((span->to - done) * element));
        t->type->gather(to + span->to * element, from + span->from * step * element,
                        span->step * step, span->count);
        done = span->to + span->count;
    }
    memset(to + done * element, 0, (size_t)((c->row_length - done) * element));
}

/* The slab: [depth][height][channel][row_length]; 0 if the run was stopped. */
static int pack_slab(task *t) {
    const convt3d_correlate *c = t->c;
    const convt3d_view *v =
        t->plan->direction == CONVT3D_FORWARD ? &t->call->input : &t->call->output;
    const int64_t element = (int64_t)t->plan->geometry.element;
    char *to = t->slab;
    const char *base =
        v->data + (t->sample * v->stride[0] + t->group * c->k * v->stride[1]) * element;
    for (int64_t d = 0; d < t->listed[0]; d++) {
        for (int64_t h = 0; h < t->listed[1]; h++) {
            const char *row =
                base + (t->list[0][d] * v->stride[2] + t->list[1][h] * v->stride[3]) * element;
            for (int64_t k = 0; k < c->k; k++, to += c->row_length * element) {
                if (convt3d_stopped(&t->call->job, t->thread)) return 0;
                pack_row(t, to, row + k * v->stride[1] * element, v->stride[4]);
            }
        }
    }
    return 1;
}

/* ---- Multiplying --------------------------------------------------------------------- */

/* Runs the segments gathered so far over all positions of a piece. */
static void multiply(const task *t, const convt3d_lane *lane, const convt3d_piece *piece,
                     char *lane_tile, const char *weights, int64_t count, int accumulate) {
    const convt3d_correlate *c = t->c;
    const convt3d_type_kernels *type = t->type;
    const int64_t element = (int64_t)t->plan->geometry.element;
    convt3d_tile tile = {.a = weights,
                         .ldb = c->row_length,
                         .ldc = c->lane_length,
                         .segments = t->segment,
                         .count = count,
                         .accumulate = accumulate};
    int tiles = 0;
    for (int64_t q = piece->q0; q < piece->q1;) {
        if (++tiles % 64 == 0 && convt3d_stopped(&t->call->job, t->thread)) return;
        int64_t vectors = convt3d_ceil_div(piece->q1 - q, type->lanes);
        vectors = min64(vectors, type->vectors);
        tile.b = t->slab + (q - lane->q0) * element;
        tile.c = lane_tile + (q - lane->q0) * element;
        type->gemm[c->rows - 1][vectors - 1](&tile);
        q += vectors * type->lanes;
    }
}

/* One piece of a lane of result row (d, h): gathers a segment for each tap,
 * always in the same order, and multiplies whenever the list is full. */
static void run_piece(const task *t, const convt3d_lane *lane, const convt3d_piece *piece,
                      char *lane_tile, const char *weights, int64_t d, int64_t h) {
    const convt3d_correlate *c = t->c;
    const convt3d_axis *axis = t->plan->geometry.axis;
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
                if (count == CONVT3D_SEGMENTS) {
                    if (convt3d_stopped(&t->call->job, t->thread)) return;
                    multiply(t, lane, piece, lane_tile, weights, count, accumulate);
                    accumulate = 1;
                    count = 0;
                }
                t->segment[count++] =
                    (convt3d_segment){.a = (kernel_row + c->tap[i].k) * c->k * c->rows,
                                      .b = row * c->k * c->row_length + c->tap[i].offset,
                                      .k = c->k};
            }
        }
    }
    if (count || !accumulate) /* no taps at all: zeros */
        multiply(t, lane, piece, lane_tile, weights, count, accumulate);
}

static void run_lane(const task *t, int64_t index, const char *weights, int64_t d, int64_t h) {
    const convt3d_correlate *c = t->c;
    const convt3d_lane *lane = &c->lane[index];
    char *tile = t->tile + index * c->rows * c->lane_length * (int64_t)t->plan->geometry.element;
    if (!t->by_pieces) {
        const convt3d_piece whole = {lane->q0, lane->q1, lane->tap0, lane->tap1};
        run_piece(t, lane, &whole, tile, weights, d, h);
        return;
    }
    /* Rising order: a tile may write beyond its piece, never before it. */
    for (int64_t p = lane->piece0; p < lane->piece1; p++)
        run_piece(t, lane, &c->piece[p], tile, weights, d, h);
}

/* ---- Storing --------------------------------------------------------------------------- */

static void fill(const task *t, char *to, int64_t step, int64_t count, double value) {
    const int64_t element = (int64_t)t->plan->geometry.element;
    const void *zero = t->zero;
    for (int64_t done = 0; done < count; done += CONVT3D_ZEROS_LENGTH)
        t->type->store(to + done * step * element, step, &zero, 1,
                       min64(CONVT3D_ZEROS_LENGTH, count - done), value, 0);
}

/* The positions u in [u0, u1) of all lanes, channel m of the tile, to a row. */
static void store_lanes(const task *t, int64_t m, char *to, int64_t step, int64_t u0, int64_t u1,
                        double bias) {
    const convt3d_correlate *c = t->c;
    const int64_t element = (int64_t)t->plan->geometry.element;
    const int64_t stride = t->plan->geometry.axis[2].stride;
    const void *teeth[CONVT3D_TEETH];
    int64_t q0 = convt3d_ceil_div(u0, stride), q1 = u1 / stride; /* whole groups of teeth */
    int together = c->lanes == stride && stride <= CONVT3D_TEETH && q0 < q1;
    if (c->lanes < stride) fill(t, to, step, u1 - u0, bias); /* positions that no tap reaches */
    for (int64_t i = 0; i < c->lanes; i++) {
        const convt3d_lane *lane = &c->lane[i];
        const char *row = t->tile + (i * c->rows + m) * c->lane_length * element;
        if (together) teeth[lane->phase] = row + (q0 - lane->q0) * element;
        /* What isn't part of a whole group: one tooth before, one after. */
        for (int64_t q = lane->q0; q < lane->q1;) {
            int64_t count = lane->q1 - q;
            if (together && q == q0) {
                q = q1;
                continue;
            }
            if (together && q < q0) count = q0 - q;
            const void *from = row + (q - lane->q0) * element;
            t->type->store(to + (q * stride + lane->phase - u0) * step * element, stride * step,
                           &from, 1, count, bias, 0);
            q += count;
        }
    }
    if (together)
        t->type->store(to + (q0 * stride - u0) * step * element, step, teeth, (int)stride, q1 - q0,
                       bias, 0);
}

/* A full row, then its borders folded onto the part that is kept. */
static void store_folded(const task *t, int64_t m, char *to, int64_t step, double bias) {
    const convt3d_axis *axis = &t->plan->geometry.axis[2];
    const int64_t element = (int64_t)t->plan->geometry.element;
    convt3d_span span[3];
    int spans = convt3d_fold_spans(axis, span);
    char *kept = t->full + axis->before * element;
    store_lanes(t, m, t->full, 1, 0, axis->full, 0);
    for (int i = 1; i < spans; i++)
        t->type->add(kept + span[i].to * element, span[i].step, t->full + span[i].from * element,
                     span[i].count);
    const void *from = kept;
    t->type->store(to, step, &from, 1, axis->out, bias, 0);
}

static double load(const task *t, const char *p) {
    return t->plan->geometry.element == 4 ? (double)*(const float *)p : *(const double *)p;
}

static void store_row(const task *t, int64_t channel, int64_t m, int64_t d, int64_t h) {
    const convt3d_call *call = t->call;
    const convt3d_axis *axis = &t->plan->geometry.axis[2];
    const int64_t element = (int64_t)t->plan->geometry.element;
    int forward = t->plan->direction == CONVT3D_FORWARD;
    const convt3d_view *v = forward ? &call->output : &call->grad_input;
    char *to = v->data + (t->sample * v->stride[0] + channel * v->stride[1] + d * v->stride[2] +
                          h * v->stride[3]) *
                             element;
    if (!forward) {
        const void *from = t->tile + m * t->c->lane_length * element;
        t->type->store(to, v->stride[4], &from, 1, axis->in, 0, call->accumulate);
        return;
    }
    double bias =
        call->bias.data ? load(t, call->bias.data + channel * call->bias.stride[0] * element) : 0;
    if (axis->mode == CONVT3D_ZEROS)
        store_lanes(t, m, to, v->stride[4], axis->before, axis->before + axis->out, bias);
    else
        store_folded(t, m, to, v->stride[4], bias);
}

/* ---- The task ------------------------------------------------------------------------------ */

static const char *weights_of(const task *t, int64_t block) {
    const convt3d_correlate *c = t->c;
    return (const char *)t->call->packed + CONVT3D_ALIGN +
           (t->group * c->m_blocks + block) * c->taps * c->k * c->rows *
               (int64_t)t->plan->geometry.element;
}

static void run_rows(const task *t, int64_t block, int64_t phase_d, int64_t phase_h,
                     const int64_t apart[2]) {
    const convt3d_correlate *c = t->c;
    const char *weights = weights_of(t, block);
    for (int64_t d = t->first[0] + phase_d; d < t->end[0]; d += apart[0]) {
        for (int64_t h = t->first[1] + phase_h; h < t->end[1]; h += apart[1]) {
            if (convt3d_stopped(&t->call->job, t->thread)) return;
            for (int64_t i = 0; i < c->lanes; i++) run_lane(t, i, weights, d, h);
            int64_t m0 = block * c->rows, m1 = min64(m0 + c->rows, c->m);
            for (int64_t m = m0; m < m1; m++) store_row(t, t->group * c->m + m, m - m0, d, h);
        }
    }
}

static void run_task(void *arg, int64_t index, int thread) {
    convt3d_call *call = arg;
    const convt3d_plan *plan = call->plan;
    const convt3d_correlate *c = plan->details;
    char *scratch = call->scratch + (size_t)thread * c->thread_bytes;
    task t = {.plan = plan,
              .c = c,
              .type = plan->type,
              .call = call,
              .thread = thread,
              .by_pieces = c->clip || call->packed->nonfinite,
              .slab = scratch,
              .tile = scratch + c->at_tile,
              .full = scratch + c->at_full,
              .zero = scratch + c->at_zero,
              .segment = (convt3d_segment *)(scratch + c->at_segments)};
    int64_t split = index % c->m_splits, rest = index / c->m_splits;
    t.block0 = c->m_blocks * split / c->m_splits;
    t.block1 = c->m_blocks * (split + 1) / c->m_splits;
    for (int a = 1; a >= 0; a--) {
        t.first[a] = rest % c->blocks[a] * c->block[a];
        t.end[a] = min64(t.first[a] + c->block[a], c->results[a]);
        rest /= c->blocks[a];
        t.list[a] = (int64_t *)(scratch + c->at_list[a]);
        list_sources(&t, a);
    }
    t.group = rest % plan->geometry.groups;
    t.sample = rest / plan->geometry.groups;
    memset(t.zero, 0, CONVT3D_ZEROS_LENGTH * plan->geometry.element);
    if (!pack_slab(&t)) return;
    /* Rows of one stride phase share their taps, and so the weights in cache. */
    int64_t apart[2] = {1, 1};
    for (int a = 0; a < 2 && plan->direction == CONVT3D_FORWARD; a++)
        apart[a] = min64(plan->geometry.axis[a].stride, c->block[a]);
    for (int64_t d = 0; d < apart[0]; d++) {
        for (int64_t h = 0; h < apart[1]; h++) {
            for (int64_t block = t.block0; block < t.block1; block++)
                run_rows(&t, block, d, h, apart);
        }
    }
}

/* ---- The algorithm ----------------------------------------------------------------------------
 */

static int64_t tasks(const convt3d_plan *plan) {
    const convt3d_correlate *c = plan->details;
    return plan->geometry.batch * plan->geometry.groups * c->blocks[0] * c->blocks[1] * c->m_splits;
}

static void run(convt3d_call *call) {
    convt3d_parallel(&call->job, 1, tasks(call->plan), run_task, call);
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
