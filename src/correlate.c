/* correlate: the tasks of forward and backward_input: list, gather, run every row.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"
#include "error.h"
#include "terms.h"
#include "tiles.h"

#include <string.h>

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
                int64_t at[2] = {t->first[0] + phase[0]}, depths;
                for (; at[0] < t->end[0]; at[0] += depths * apart[0]) {
                    depths = convt3d_correlate_depths(t, at[0], apart[0]);
                    for (at[1] = t->first[1] + phase[1]; at[1] < t->end[1];) {
                        if (convt3d_stopped(&t->call->job, t->thread)) return;
                        at[1] += apart[1] * convt3d_correlate_run_row(t, u, end, at, apart, depths);
                    }
                }
            }
        }
    }
}

/* All rows of one height after another, each with the source rows that are new to it. */
static void run_rolling(const convt3d_task *t) {
    int64_t ready = 0;
    for (int64_t h = t->first[1]; h < t->end[1]; h++) {
        const int64_t needed = convt3d_correlate_needed(t, h);
        if (needed > ready) {
            if (!convt3d_correlate_gather(t, ready, needed)) return;
            ready = needed;
        }
        if (t->asks && h + 1 < t->end[1])
            convt3d_correlate_ask(t, ready, max64(ready, convt3d_correlate_needed(t, h + 1)));
        for (int64_t d = t->first[0]; d < t->end[0]; d++) {
            if (convt3d_stopped(&t->call->job, t->thread)) return;
            const int64_t at[2] = {d, h}, apart[2] = {1, 1};
            convt3d_correlate_run_row(t, t->unit0, t->unit1, at, apart, 1);
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

static void set_together(convt3d_task *t) {
    t->together = t->cut->together[t->cut->run == 1 && convt3d_correlate_across(t, t->to)];
    t->lane_size = min64(t->together * t->cut->width, t->groups * t->c->m) * t->cut->tile_pitch *
                   (int64_t)t->plan->geometry.element;
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
    }
    t->q0 = cut->strips == 1 ? INT64_MIN : t->c->first_position + rest % cut->strips * cut->strip;
    t->q1 = cut->strips == 1 ? INT64_MAX : t->q0 + cut->strip;
    rest /= cut->strips;
    t->group = rest % cut->group_blocks * cut->groups;
    t->groups = min64(cut->groups, g->groups - t->group);
    t->sample = rest / cut->group_blocks * cut->run;
    t->run = min64(cut->run, g->batch - t->sample);
    convt3d_correlate_list(t);
    t->slab_step[1] = cut->flat > 1 ? cut->row_length : t->groups * t->c->k * cut->row_pitch;
    t->slab_step[0] =
        cut->flat > 1 ? t->groups * t->c->k * cut->row_pitch : cut->ring * t->slab_step[1];
    memcpy(t->program_step, t->slab_step, sizeof t->program_step);
    t->unit0 = convt3d_part_start(t->groups * cut->units, cut->unit_splits, split);
    t->unit1 = convt3d_part_start(t->groups * cut->units, cut->unit_splits, split + 1);
}

/* Whether a row may start or end within a cache line. */
static int shares_lines(const convt3d_view *v, size_t element) {
    uint64_t offsets = (uintptr_t)v->data | (uint64_t)v->size[4] * element;
    for (int a = 0; a < 4; a++) offsets |= v->size[a] > 1 ? (uint64_t)v->stride[a] * element : 0;
    return offsets % CONVT3D_ALIGN != 0;
}

static void run_rows(const convt3d_task *t) {
    if (t->cut->rolling)
        run_rolling(t);
    else if (convt3d_correlate_gather(t, 0, t->listed[1]))
        run_phases(t);
}

/* All rows as terms and, where not all fit and 'both', as float32 too. */
static int gather_terms(const convt3d_task *t, int both) {
    if (!convt3d_correlate_gather(t, 0, t->listed[1])) return 0;
    if (!both || convt3d_correlate_all_fit(t)) return 1;
    return convt3d_correlate_gather(t->plain, 0, t->listed[1]);
}

/* The same by products of terms.  Samples side by side share what range their rows have, so
 * that each goes by itself where it is too wide. */
static void run_terms(const convt3d_task *given) {
    char state[CONVT3D_TERM_LINE];
    convt3d_range seen = convt3d_range_none();
    convt3d_task t = *given, plain = *given;
    plain.row_by_row = 1;
    t.seen = &seen;
    t.plain = &plain;
    t.terms = 1;
    t.staged = !t.cut->rolling;
    if (t.staged && t.cut->flat == 1)
        t.slab_step[1] = min64(CONVT3D_TERM_BLOCK, t.c->k) * t.cut->row_pitch;
    convt3d_correlate_term_steps(&t, t.program_step);
    t.plan->kernels->terms->begin(state);
    if (t.cut->rolling) {
        run_rolling(&t);
    } else if (gather_terms(&t, given->run == 1)) {
        if (given->run == 1 || convt3d_correlate_all_fit(&t))
            run_phases(&t);
        else
            for (int64_t i = 0; i < given->run; i++) {
                seen = convt3d_range_none();
                t.run = plain.run = 1;
                t.sample = plain.sample = given->sample + i;
                set_together(&t);
                set_together(&plain);
                if (gather_terms(&t, 1)) run_phases(&t);
            }
    }
    t.plan->kernels->terms->end(state);
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
        .movers = plan->movers,
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
        .order = {(int64_t *)(scratch + c->at_order[0]), (int64_t *)(scratch + c->at_order[1])},
        .term_order = (int64_t *)(scratch + c->at_term_order),
        .term_slab = scratch + c->at_terms,
        .range = (convt3d_range *)(scratch + c->at_ranges),
        .list = {(int64_t *)(scratch + c->at_list[0]), (int64_t *)(scratch + c->at_list[1])}};
    place_task(&t, index);
    t.stream = c->stream && t.to->stride[4] == 1 && !call->accumulate;
    if (t.stream && shares_lines(t.to, plan->geometry.stored)) {
        t.carry = (convt3d_carry *)(scratch + c->at_carry);
        t.carries = convt3d_correlate_carries(c, t.cut);
        for (int64_t i = 0; i < t.carries; i++) t.carry[i].count = 0;
    }
    if (t.cut->rolling && t.cut->groups == 1 && t.from->stride[4] == 1) {
        t.asks = (convt3d_asks *)(scratch + c->at_asks);
        convt3d_asks_init(t.asks);
    }
    set_together(&t);
    memset(t.zero, 0, c->zeros_bytes);
    if (plan->activation != CONVT3D_ACTIVATION_NONE) /* -0, which changes nothing */
        t.type->activate(t.zero, CONVT3D_ZEROS_LENGTH, -1, CONVT3D_ACTIVATION_LEAKY_RELU, 0);
    convt3d_correlate_set_teeth(&t);
    if (convt3d_correlate_use_terms(c, call))
        run_terms(&t);
    else {
        convt3d_correlate_need_numbers(call);
        run_rows(&t);
    }
    if (t.stream) t.movers->drain(t.carry, t.carries);
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

const convt3d_algorithm convt3d_engine_correlate = {
    .name = "engine",
    .prepare = convt3d_correlate_prepare,
    .scratch = scratch,
    .run = run,
    .pack_tasks = convt3d_correlate_pack_tasks,
    .pack = convt3d_correlate_pack,
    .describe = convt3d_correlate_describe,
};
