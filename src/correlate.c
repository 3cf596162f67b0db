/* correlate: a task of forward or backward_input: list, gather, multiply, store.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "error.h"
#include "tiles.h"

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
    pairs p = {.axis = &t->c->axis[a],
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

/* Where the slab holds the listed source rows: in their order, or, where backward_input
 * runs several result rows as one, those of one stride phase after another. */
static void order_rows(const convt3d_task *t) {
    const convt3d_axis *axis = &t->c->axis[1];
    int64_t next = 0;
    int parted = t->cut->flat > 1 && t->plan->direction != CONVT3D_FORWARD;
    const int64_t phases = parted ? axis->stride : 1;
    for (int64_t phase = 0; phase < phases; phase++) {
        for (int64_t i = 0; i < t->listed[1]; i++) {
            if ((t->list[1][i] + axis->before) % phases == phase) t->order[i] = next++;
        }
    }
}

/* The place of a source row in the list, on one axis. */
static int64_t place(const convt3d_task *t, int a, int64_t source) {
    return convt3d_list_place(t->list[a], t->listed[a], source);
}

/* ---- Units ----------------------------------------------------------------------------- */

/* Channels [m0, m1) of a group, that are those from 'column' on of a panel. */
typedef struct unit {
    int64_t group, m0, m1, panel, column;
} unit;

static unit unit_at(const convt3d_task *t, int64_t index) {
    const convt3d_correlate *c = t->c;
    const convt3d_cut *cut = t->cut;
    unit u = {.group = index / cut->units, .panel = index % cut->units / cut->in_panel};
    u.column = index % cut->units % cut->in_panel * cut->width;
    u.m0 = u.panel * c->panel + u.column;
    u.m1 = min64(u.m0 + cut->width, min64((u.panel + 1) * c->panel, c->m));
    return u;
}

/* A unit's first channel, and the one after its last, counted over all groups of the
 * task. */
static int64_t first_channel(const convt3d_task *t, const unit *u) {
    return u->group * t->c->m + u->m0;
}

static int64_t end_channel(const convt3d_task *t, const unit *u) {
    return u->group * t->c->m + u->m1;
}

static const char *weights_of(const convt3d_task *t, const unit *u) {
    const convt3d_correlate *c = t->c;
    const int64_t panel = (t->group + u->group) * c->panels + u->panel;
    return (const char *)t->call->packed + CONVT3D_ALIGN +
           (panel * c->taps * c->k * c->panel + u->column) * (int64_t)t->plan->geometry.element;
}

/* ---- Multiplying --------------------------------------------------------------------- */

/* Vectors along positions, from 'sources' on: rows are the unit's channels. */
static void multiply_straight(const convt3d_task *t, const unit *u, convt3d_tile *tile,
                              int64_t count) {
    const int64_t element = (int64_t)t->plan->geometry.element, lanes = t->type->lanes;
    const int64_t vectors = convt3d_ceil_div(count, lanes);
    const int64_t tiles = convt3d_ceil_div(vectors, t->cut->vectors);
    const char *b = tile->b;
    char *c = tile->c;
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t start = convt3d_part_start(vectors, tiles, i);
        const int64_t width = convt3d_part_start(vectors, tiles, i + 1) - start;
        if (i % 64 == 63 && convt3d_stopped(&t->call->job, t->thread)) return;
        tile->b = b + start * lanes * element;
        tile->c = c + start * lanes * element;
        t->type->gemm[u->m1 - u->m0 - 1][width - 1](tile);
    }
}

/* Vectors along channels: rows are positions; turned back when all are done. */
static void multiply_turned(const convt3d_task *t, const unit *u, convt3d_tile *tile,
                            int64_t count) {
    const int64_t element = (int64_t)t->plan->geometry.element, lanes = t->type->lanes;
    const int64_t vectors = convt3d_ceil_div(u->m1 - u->m0, lanes), width = vectors * lanes;
    const int64_t tiles = convt3d_ceil_div(count, t->cut->rows), channels = u->m1 - u->m0;
    const char *a = tile->a;
    char *c = tile->c;
    if (tile->accumulate)
        t->type->transpose(t->turned, width, c, t->cut->tile_pitch, 1, channels, width, count);
    tile->c_row = width;
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t start = convt3d_part_start(count, tiles, i);
        const int64_t rows = convt3d_part_start(count, tiles, i + 1) - start;
        if (i % 64 == 63 && convt3d_stopped(&t->call->job, t->thread)) return;
        tile->a = a + start * element;
        tile->c = t->turned + start * width * element;
        t->type->gemm[rows - 1][vectors - 1](tile);
    }
    t->type->transpose(c, t->cut->tile_pitch, t->turned, width, 1, count, count, channels);
}

static void multiply(const convt3d_task *t, const unit *u, const convt3d_step *step,
                     char *unit_tile) {
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
    else
        multiply_straight(t, u, &tile, count);
}

/* ---- Programs -------------------------------------------------------------------------- */

/* Runs the program for some units. */
static void run_program(const convt3d_task *t, int64_t unit0, int64_t unit1) {
    const convt3d_program *p = t->program;
    const unit first = unit_at(t, unit0);
    for (int64_t i = unit0; i < unit1 && !convt3d_stopped(&t->call->job, t->thread); i++) {
        const unit u = unit_at(t, i);
        char *tile = t->tile + (first_channel(t, &u) - first_channel(t, &first)) *
                                   t->cut->tile_pitch * (int64_t)t->plan->geometry.element;
        for (int64_t s = 0; s < p->steps; s++) multiply(t, &u, &p->step[s], tile);
    }
}

static void start_program(const convt3d_task *t) {
    t->program->segments = t->program->steps = 0;
}

/* A place for one more segment of the program's last step: where there is none, what
 * is there is run, and the step goes on in a new program. */
static convt3d_segment *add_segment(const convt3d_task *t, int64_t unit0, int64_t unit1) {
    convt3d_program *p = t->program;
    if (p->segments == CONVT3D_SEGMENTS) {
        convt3d_step rest = p->step[p->steps - 1];
        run_program(t, unit0, unit1);
        start_program(t);
        rest.accumulate = 1;
        rest.segment = rest.count = 0;
        p->step[p->steps++] = rest;
    }
    p->step[p->steps - 1].count++;
    return &p->segment[p->segments++];
}

/* One piece of a lane, through the pairs gathered so far, always in the same order. */
static void add_step(const convt3d_task *t, int64_t lane, const convt3d_piece *piece,
                     int accumulate, int64_t unit0, int64_t unit1) {
    const convt3d_correlate *c = t->c;
    convt3d_program *p = t->program;
    const int64_t kernel_w = t->c->axis[2].kernel, pitch = t->cut->row_pitch;
    const int64_t shift = max64(c->lane[lane].q0, t->q0) - c->lane[lane].q0;
    if (p->steps == CONVT3D_STEPS) {
        run_program(t, unit0, unit1);
        start_program(t);
    }
    p->step[p->steps++] = (convt3d_step){.lane = lane,
                                         .q0 = piece->q0,
                                         .q1 = piece->q1,
                                         .segment = p->segments,
                                         .accumulate = accumulate};
    for (int64_t k = 0; k < c->k; k += c->k_block) {
        for (int64_t i = 0; i < p->pairs; i++) {
            for (int64_t j = piece->tap0; j < piece->tap1; j++) {
                const int64_t x =
                    c->tap[j].offset + shift - convt3d_correlate_shift(t, c->tap_part[j]);
                const int64_t weights =
                    ((p->pair[i].kernel_row * kernel_w + c->tap[j].k) * c->k + k) * c->panel;
                const int64_t slab = p->pair[i].slab + k * pitch + x * t->run;
                *add_segment(t, unit0, unit1) =
                    (convt3d_segment){.a = t->cut->turned ? slab : weights,
                                      .b = t->cut->turned ? weights : slab,
                                      .k = min64(c->k_block, c->k - k)};
            }
        }
    }
}

/* ---- A result row ----------------------------------------------------------------------- */

/* Where the walk over a result row's pairs of depth and height is. */
typedef struct walk {
    pairs depth, height;
    int64_t slab_d;
    int inside; /* a depth is at hand */
} walk;

static walk walk_of(const convt3d_task *t, int64_t d) {
    return (walk){.depth = pairs_of(t, 0, d)};
}

/* The next pair; 0: there is none. */
static int walk_on(const convt3d_task *t, walk *w, int64_t h, convt3d_pair *pair) {
    for (;;) {
        if (!w->inside) {
            if (!next_pair(&w->depth)) return 0;
            w->inside = 1;
            w->slab_d = place(t, 0, w->depth.source) * t->slab_step[0];
            w->height = pairs_of(t, 1, h);
        }
        if (next_pair(&w->height)) {
            *pair = (convt3d_pair){w->depth.k * t->c->axis[1].kernel + w->height.k,
                                   w->slab_d +
                                       t->order[place(t, 1, w->height.source)] * t->slab_step[1]};
            return 1;
        }
        w->inside = 0;
    }
}

/* The next pairs, as many as fit the program; 1 if there may be more. */
static int next_pairs(const convt3d_task *t, walk *w, int64_t h) {
    convt3d_program *p = t->program;
    for (p->pairs = 0; p->pairs < CONVT3D_PAIRS; p->pairs++) {
        if (!walk_on(t, w, h, &p->pair[p->pairs])) return 0;
    }
    return 1;
}

/* How many of the result rows from h on, 'apart' from each other, are one behind the
 * other: with the pairs of the first, each one slab row further on. */
static int64_t flat_rows(const convt3d_task *t, int64_t d, int64_t h, int64_t apart, int many) {
    const convt3d_program *p = t->program;
    int64_t rows = 1;
    if (many || t->by_pieces) return 1;
    for (; rows < t->cut->flat && h + rows * apart < t->end[1]; rows++) {
        walk w = walk_of(t, d);
        convt3d_pair pair;
        int64_t i = 0;
        while (walk_on(t, &w, h + rows * apart, &pair)) {
            if (i == p->pairs || pair.kernel_row != p->pair[i].kernel_row ||
                pair.slab != p->pair[i].slab + rows * t->slab_step[1])
                return rows;
            i++;
        }
        if (i < p->pairs) return rows;
    }
    return rows;
}

/* All pairs of one piece, a program at a time. */
static void run_piece(const convt3d_task *t, int64_t lane, const convt3d_piece *piece,
                      int64_t unit0, int64_t unit1, int64_t d, int64_t h) {
    walk w = walk_of(t, d);
    for (int more = 1, accumulate = 0; more; accumulate = 1) {
        if (convt3d_stopped(&t->call->job, t->thread)) return;
        more = next_pairs(t, &w, h);
        if (accumulate && !t->program->pairs) return;
        add_step(t, lane, piece, accumulate, unit0, unit1);
        run_program(t, unit0, unit1);
        start_program(t);
    }
}

/* A result row, and those that are run as one with it. */
typedef struct result {
    int64_t d, h, apart, rows;
    int many; /* pairs: too many for one program */
} result;

/* The pieces of a lane that are to be run. */
static int64_t pieces_of(const convt3d_task *t, const convt3d_lane *lane) {
    return t->by_pieces ? lane->piece1 - lane->piece0 : 1;
}

/* What the result's rows take: all of it, or, where it is too much for one program,
 * what is left after the rest has been run for these units. */
static void build(const convt3d_task *t, const result *r, int64_t unit0, int64_t unit1) {
    const convt3d_correlate *c = t->c;
    start_program(t);
    for (int64_t i = 0; i < c->lanes; i++) {
        const convt3d_lane *lane = &c->lane[i];
        const convt3d_piece whole = {lane->q0, lane->q1, lane->tap0, lane->tap1};
        const convt3d_piece *pieces = t->by_pieces ? &c->piece[lane->piece0] : &whole;
        /* Rising order: a tile may write beyond its piece, never before it. */
        for (int64_t j = 0; j < pieces_of(t, lane); j++) {
            convt3d_piece piece = pieces[j];
            piece.q0 = max64(piece.q0, t->q0);
            piece.q1 = min64(piece.q1, t->q1);
            if (piece.q0 >= piece.q1) continue;
            piece.q1 += (r->rows - 1) * t->cut->row_length;
            if (r->many)
                run_piece(t, i, &piece, unit0, unit1, r->d, r->h);
            else
                add_step(t, i, &piece, 0, unit0, unit1);
        }
    }
}

/* Whether what build() makes fits one program, which then serves all units. */
static int fits_program(const convt3d_task *t, const result *r) {
    const convt3d_correlate *c = t->c;
    const int64_t each = t->program->pairs * convt3d_ceil_div(c->k, c->k_block);
    int64_t steps = 0, segments = 0;
    if (r->many) return 0;
    for (int64_t i = 0; i < c->lanes && segments <= CONVT3D_SEGMENTS; i++) {
        const int64_t pieces = pieces_of(t, &c->lane[i]);
        steps += pieces;
        segments += pieces * (c->lane[i].tap1 - c->lane[i].tap0) * each;
    }
    return steps <= CONVT3D_STEPS && segments <= CONVT3D_SEGMENTS;
}

static void store_rows(const convt3d_task *t, const result *r, int64_t unit0, int64_t unit1) {
    const unit first = unit_at(t, unit0), last = unit_at(t, unit1 - 1);
    for (int64_t i = 0; i < r->rows && !convt3d_stopped(&t->call->job, t->thread); i++)
        convt3d_correlate_store(t, first_channel(t, &first), end_channel(t, &last), r->d,
                                r->h + i * r->apart, i);
}

static void foresee_rows(const convt3d_task *t, const result *r, int64_t unit0, int64_t unit1) {
    const unit first = unit_at(t, unit0), last = unit_at(t, unit1 - 1);
    for (int64_t i = 0; i < r->rows && t->stream; i++)
        convt3d_correlate_foresee(t, first_channel(t, &first), end_channel(t, &last), r->d,
                                  r->h + i * r->apart);
}

/* Result row (d, h) for some units, and those after it that are run as one with it:
 * multiplies, then stores.  Returns how many rows that were. */
static int64_t run_row(const convt3d_task *t, int64_t unit0, int64_t unit1, int64_t d, int64_t h,
                       int64_t apart) {
    result r = {.d = d, .h = h, .apart = apart};
    walk w = walk_of(t, d);
    r.many = next_pairs(t, &w, h);
    r.rows = flat_rows(t, d, h, apart, r.many);
    const int once = fits_program(t, &r);
    if (once) build(t, &r, unit0, unit1);
    for (int64_t u = unit0; u < unit1; u += t->together) {
        const int64_t end = min64(u + t->together, unit1);
        if (convt3d_stopped(&t->call->job, t->thread)) break;
        foresee_rows(t, &r, u, end);
        if (!once) build(t, &r, u, end);
        run_program(t, u, end);
        store_rows(t, &r, u, end);
    }
    return r.rows;
}

/* ---- The task ------------------------------------------------------------------------------ */

/* Rows of one stride phase share their taps: they come one after another where all
 * taps' weights would not stay close. */
static void run_phases(const convt3d_task *t) {
    int64_t apart[2] = {1, 1}, phase[2];
    for (int a = 0; a < 2 && t->cut->by_phase; a++)
        apart[a] = min64(t->c->axis[a].stride, t->cut->block[a]);
    for (phase[0] = 0; phase[0] < apart[0]; phase[0]++) {
        for (phase[1] = 0; phase[1] < apart[1]; phase[1]++) {
            for (int64_t u = t->unit0; u < t->unit1; u += t->cut->share) {
                const int64_t end = min64(u + t->cut->share, t->unit1);
                for (int64_t d = t->first[0] + phase[0]; d < t->end[0]; d += apart[0]) {
                    for (int64_t h = t->first[1] + phase[1]; h < t->end[1];) {
                        if (convt3d_stopped(&t->call->job, t->thread)) return;
                        h += apart[1] * run_row(t, u, end, d, h, apart[1]);
                    }
                }
            }
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

/* Which rows, strip, groups, samples and units a task is, from its number. */
static void place_task(convt3d_task *t, int64_t index) {
    const convt3d_cut *cut = t->cut;
    const convt3d_geometry *g = &t->plan->geometry;
    int64_t split = index % cut->unit_splits, rest = index / cut->unit_splits;
    for (int a = 1; a >= 0; a--) {
        t->first[a] = rest % cut->blocks[a] * cut->block[a];
        t->end[a] = min64(t->first[a] + cut->block[a], t->c->results[a]);
        rest /= cut->blocks[a];
        list_sources(t, a);
    }
    t->q0 = cut->strips == 1 ? INT64_MIN : t->c->first_position + rest % cut->strips * cut->strip;
    t->q1 = cut->strips == 1 ? INT64_MAX : t->q0 + cut->strip;
    rest /= cut->strips;
    t->group = rest % cut->group_blocks * cut->groups;
    t->groups = min64(cut->groups, g->groups - t->group);
    t->sample = rest / cut->group_blocks * cut->run;
    t->run = min64(cut->run, g->batch - t->sample);
    order_rows(t);
    t->slab_step[1] = cut->flat > 1 ? cut->row_length : t->groups * t->c->k * cut->row_pitch;
    t->slab_step[0] =
        cut->flat > 1 ? t->groups * t->c->k * cut->row_pitch : t->listed[1] * t->slab_step[1];
    t->unit0 = convt3d_part_start(t->groups * cut->units, cut->unit_splits, split);
    t->unit1 = convt3d_part_start(t->groups * cut->units, cut->unit_splits, split + 1);
}

static void run_task(void *arg, int64_t index, int thread) {
    convt3d_call *call = arg;
    const convt3d_plan *plan = call->plan;
    const convt3d_correlate *c = plan->details;
    char *scratch = call->scratch + (size_t)thread * c->thread_bytes;
    int forward = plan->direction == CONVT3D_FORWARD;
    convt3d_task t = {
        .plan = plan,
        .c = c,
        .cut = cut_of(call),
        .type = plan->type,
        .call = call,
        .from = forward ? &call->input : &call->output,
        .to = forward ? &call->output : &call->grad_input,
        .thread = thread,
        .by_pieces = c->clip || call->packed->nonfinite,
        .slab = scratch,
        .tile = scratch + c->at_tile,
        .turned = scratch + c->at_turned,
        .full = scratch + c->at_full,
        .zero = scratch + c->at_zero,
        .program = (convt3d_program *)(scratch + c->at_program),
        .order = (int64_t *)(scratch + c->at_order),
        .list = {(int64_t *)(scratch + c->at_list[0]), (int64_t *)(scratch + c->at_list[1])}};
    place_task(&t, index);
    t.stream = c->stream && t.to->stride[4] == 1 && !call->accumulate;
    t.together = t.cut->together[t.cut->run == 1 && convt3d_correlate_across(&t, t.to)];
    t.lane_size = min64(t.together * t.cut->width, t.groups * c->m) * t.cut->tile_pitch *
                  (int64_t)plan->geometry.element;
    memset(t.zero, 0, c->zeros_bytes);
    if (plan->activation != CONVT3D_ACTIVATION_NONE) /* -0, which changes nothing */
        t.type->activate(t.zero, CONVT3D_ZEROS_LENGTH, -1, CONVT3D_ACTIVATION_LEAKY_RELU, 0);
    convt3d_correlate_set_teeth(&t);
    if (convt3d_correlate_gather(&t)) run_phases(&t);
    if (t.stream) t.type->drain();
}

/* ---- The algorithm ------------------------------------------------------------------------- */

static void run(convt3d_call *call) {
    const convt3d_cut *cut = cut_of(call);
    int64_t blocks = cut->blocks[0] * cut->blocks[1] * cut->strips * cut->unit_splits;
    convt3d_parallel(&call->job, 1, cut->runs * cut->group_blocks * blocks, run_task, call);
}

static int scratch(const convt3d_plan *plan, int32_t threads, size_t *bytes) {
    const convt3d_correlate *c = plan->details;
    *bytes = 0;
    return convt3d_grow(bytes, (size_t)threads, c->thread_bytes);
}

/* Packed weights: [group][panel][kD][kH][kW][k][a panel's channels], in tasks of a few
 * source channels. */
enum {
    PACK_CHANNELS = 16
};

static int64_t pack_tasks(const convt3d_plan *plan) {
    const convt3d_correlate *c = plan->details;
    return plan->geometry.groups * c->panels * convt3d_ceil_div(c->k, PACK_CHANNELS);
}

/* All taps of one source channel, for 'rows' result channels 'm_stride' apart: those that
 * lie side by side in the caller's memory are read together. */
static void pack_taps(const convt3d_plan *plan, const convt3d_view *w, char *to, const char *from,
                      int64_t m_stride, int64_t rows) {
    const convt3d_correlate *c = plan->details;
    const int64_t element = (int64_t)plan->geometry.element, tap = c->k * c->panel;
    const int64_t kernel[3] = {c->axis[0].kernel, c->axis[1].kernel, c->axis[2].kernel};
    int64_t together = kernel[2], lines = c->taps / kernel[2];
    if (w->stride[3] == kernel[2] * w->stride[4] && w->stride[2] == kernel[1] * w->stride[3]) {
        together = c->taps;
        lines = 1;
    }
    for (int64_t i = 0; i < lines; i++) {
        const int64_t at = i / kernel[1] * w->stride[2] + i % kernel[1] * w->stride[3];
        plan->type->transpose(to + i * together * tap * element, tap, from + at * element, m_stride,
                              w->stride[4], rows, c->panel, together);
    }
}

/* The same with merged phases, one result channel after another. */
static void pack_merged(const convt3d_plan *plan, const convt3d_view *w, char *to, const char *from,
                        int64_t m0, int64_t rows) {
    const convt3d_correlate *c = plan->details;
    const int64_t element = (int64_t)plan->geometry.element;
    const convt3d_task group = {.plan = plan, .c = c};
    for (int64_t tap = 0; tap < c->taps; tap++) {
        const int64_t e[3] = {tap / c->axis[2].kernel / c->axis[1].kernel,
                              tap / c->axis[2].kernel % c->axis[1].kernel, tap % c->axis[2].kernel};
        char *row = to + tap * c->k * c->panel * element;
        memset(row, 0, (size_t)(c->panel * element));
        for (int64_t r = 0; r < rows; r++) {
            int64_t phase[3], at;
            at = convt3d_correlate_channel(&group, m0 + r, phase) * w->stride[1];
            for (int a = 0; a < 3; a++) at += (e[a] * c->merged[a] + phase[a]) * w->stride[2 + a];
            memcpy(row + r * element, from + at * element, (size_t)element);
        }
    }
}

static void pack(const convt3d_plan *plan, const convt3d_view *w, convt3d_packed *packed,
                 int64_t index) {
    const convt3d_correlate *c = plan->details;
    const convt3d_geometry *g = &plan->geometry;
    const int64_t element = (int64_t)g->element, tap = c->k * c->panel;
    const int64_t parts = convt3d_ceil_div(c->k, PACK_CHANNELS);
    int forward = plan->direction == CONVT3D_FORWARD;
    int64_t group = index / parts / c->panels, m0 = index / parts % c->panels * c->panel;
    int64_t m_stride = w->stride[forward ? 1 : 0], k_stride = w->stride[forward ? 0 : 1];
    int64_t k0 = index % parts * PACK_CHANNELS, rows = min64(c->panel, c->m - m0);
    char *to = (char *)packed + CONVT3D_ALIGN + index / parts * c->taps * tap * element;
    const char *from = w->data + group * g->group_inputs * w->stride[0] * element;
    int bad = 0;
    for (int64_t k = k0; k < min64(k0 + PACK_CHANNELS, c->k); k++) {
        char *row = to + k * c->panel * element;
        const char *source = from + k * k_stride * element;
        if (c->merged[0] * c->merged[1] * c->merged[2] > 1)
            pack_merged(plan, w, row, source, m0, rows);
        else
            pack_taps(plan, w, row, source + m0 * m_stride * element, m_stride, rows);
        for (int64_t i = 0; i < c->taps && !bad; i++)
            bad = plan->type->nonfinite(row + i * tap * element, c->panel);
    }
    if (bad) __atomic_store_n(&packed->nonfinite, 1, __ATOMIC_RELAXED);
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
