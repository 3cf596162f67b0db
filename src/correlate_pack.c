/* correlate_pack: the weights of forward and backward_input, packed.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"

#include <sched.h>
#include <string.h>

/* Packed weights: [group][panel][kD][kH][kW][k][a panel's channels], in tasks of a few
 * source channels. */
enum {
    PACK_CHANNELS = CONVT3D_TERM_BLOCK
};

int64_t convt3d_correlate_pack_tasks(const convt3d_plan *plan) {
    const convt3d_correlate *c = plan->details;
    return plan->geometry.groups * c->panels * convt3d_ceil_div(c->k, PACK_CHANNELS);
}

/* Channels are [group][depth phase][height phase][channel][width phase]. */
int64_t convt3d_correlate_channel(const convt3d_correlate *c, int64_t m, int64_t phase[3]) {
    const int64_t *merged = c->merged;
    const int64_t channels = c->m / convt3d_phases(c);
    const int64_t group = m / c->m, rest = m % c->m / merged[2];
    phase[2] = m % merged[2];
    phase[1] = rest / channels % merged[1];
    phase[0] = rest / channels / merged[1];
    return group * channels + rest % channels;
}

/* A task's source channels, and where they go: 'tap' elements from tap to tap. */
typedef struct target {
    int64_t panel, k0, k1; /* counted over all groups; of the group */
    char *to;
    int64_t tap;
} target;

static target place(const convt3d_plan *plan, char *packed, int64_t index) {
    const convt3d_correlate *c = plan->details;
    const int64_t parts = convt3d_ceil_div(c->k, PACK_CHANNELS), tap = c->k * c->panel;
    const int64_t k0 = index % parts * PACK_CHANNELS;
    const int64_t at = index / parts * c->taps * tap + k0 * c->panel;
    return (target){.panel = index / parts,
                    .k0 = k0,
                    .k1 = min64(k0 + PACK_CHANNELS, c->k),
                    .to = packed + CONVT3D_ALIGN + at * (int64_t)plan->geometry.element,
                    .tap = tap};
}

/* All taps of one source channel, for 'rows' result channels 'm_stride' apart: those that
 * lie side by side in the caller's memory are read together.  Zeros up to 'padded'. */
static void pack_taps(const convt3d_plan *plan, const convt3d_view *w, char *to, int64_t tap,
                      const char *from, int64_t m_stride, int64_t rows, int64_t padded) {
    const convt3d_correlate *c = plan->details;
    const int64_t element = (int64_t)plan->geometry.element;
    const int64_t stored = (int64_t)plan->movers->element;
    const int64_t kernel[3] = {c->axis[0].kernel, c->axis[1].kernel, c->axis[2].kernel};
    int64_t together = kernel[2], lines = c->taps / kernel[2];
    if (w->stride[3] == kernel[2] * w->stride[4] && w->stride[2] == kernel[1] * w->stride[3]) {
        together = c->taps;
        lines = 1;
    }
    for (int64_t i = 0; i < lines; i++) {
        const int64_t at = i / kernel[1] * w->stride[2] + i % kernel[1] * w->stride[3];
        plan->movers->transpose(to + i * together * tap * element, tap, from + at * stored,
                                m_stride, w->stride[4], rows, padded, together);
    }
}

/* The same with merged phases, one result channel of the only panel after another. */
static void pack_merged(const convt3d_plan *plan, const convt3d_view *w, char *to,
                        const char *from) {
    const convt3d_correlate *c = plan->details;
    const int64_t element = (int64_t)plan->geometry.element;
    for (int64_t tap = 0; tap < c->taps; tap++) {
        const int64_t e[3] = {tap / c->axis[2].kernel / c->axis[1].kernel,
                              tap / c->axis[2].kernel % c->axis[1].kernel, tap % c->axis[2].kernel};
        char *row = to + tap * c->k * c->panel * element;
        for (int64_t m = 0; m < c->m; m++) {
            int64_t phase[3], at;
            int there = 1; /* else nothing ever reads it */
            at = convt3d_correlate_channel(c, m, phase) * w->stride[1];
            for (int a = 0; a < 3; a++) {
                at += (e[a] * c->merged[a] + phase[a]) * w->stride[2 + a];
                there = there && (!convt3d_is_few(c, a, e[a]) || phase[a] < c->last[a]);
            }
            const convt3d_rows one = {.to = row + m * element,
                                      .from = from + at * (int64_t)plan->movers->element,
                                      .count = {1, 1, 1}};
            if (!there)
                memset(row + m * element, 0, (size_t)element);
            else if (plan->movers == &plan->type->own)
                memcpy(one.to, one.from, (size_t)element);
            else
                plan->movers->gather(&one);
        }
    }
}

/* Returns whether there is an Inf or NaN. */
static int pack_numbers(const convt3d_plan *plan, const convt3d_view *w, const target *t) {
    const convt3d_correlate *c = plan->details;
    const convt3d_geometry *g = &plan->geometry;
    const int64_t element = (int64_t)g->element, stored = (int64_t)g->stored;
    const int forward = plan->direction == CONVT3D_FORWARD;
    const int64_t group = t->panel / c->panels, m0 = t->panel % c->panels * c->panel;
    const int64_t m_stride = w->stride[forward ? 1 : 0], k_stride = w->stride[forward ? 0 : 1];
    const int64_t rows = min64(c->panel, c->m - m0);
    const char *from = w->data + group * g->group_inputs * w->stride[0] * stored;
    /* A few rows' elements of all source channels, where these are near each other. */
    const int64_t block =
        k_stride < m_stride && !convt3d_is_merged(c) ? plan->type->lanes : c->panel;
    int bad = 0;
    for (int64_t m = 0; m < c->panel; m += block) {
        for (int64_t k = t->k0; k < t->k1; k++) {
            char *row = t->to + (k - t->k0) * c->panel * element;
            const char *source = from + k * k_stride * stored;
            if (convt3d_is_merged(c))
                pack_merged(plan, w, row, source);
            else
                pack_taps(plan, w, row + m * element, t->tap, source + (m0 + m) * m_stride * stored,
                          m_stride, max64(0, min64(block, rows - m)), min64(block, c->panel - m));
        }
    }
    for (int64_t i = 0; i < c->taps && !bad; i++)
        bad = plan->type->nonfinite(t->to + i * t->tap * element, (t->k1 - t->k0) * c->panel);
    return bad;
}

int64_t convt3d_correlate_stage_step(const convt3d_correlate *c) {
    const int64_t line = CONVT3D_ALIGN / (int64_t)sizeof(float);
    return PACK_CHANNELS * c->panel + line; /* or all taps would share a few lines of the cache */
}

/* Terms are made of numbers: where they alone are wanted, of some that stay in the cache. */
void convt3d_correlate_pack(const convt3d_plan *plan, const convt3d_view *w, convt3d_packed *packed,
                            int64_t index, int thread) {
    const convt3d_correlate *c = plan->details;
    target t = place(plan, (char *)packed, index);
    if (c->terms && !packed->whole) {
        t.tap = convt3d_correlate_stage_step(c);
        t.to = (char *)packed + c->at_stage + (size_t)thread * c->stage_bytes;
        __atomic_store_n(&packed->lacks_numbers, 1, __ATOMIC_RELAXED);
    }
    if (pack_numbers(plan, w, &t)) __atomic_store_n(&packed->nonfinite, 1, __ATOMIC_RELAXED);
    if (c->terms || (c->term_count && packed->whole))
        convt3d_correlate_pack_terms(plan, packed, t.panel, t.k0, t.k1, (const float *)t.to, t.tap);
}

/* Whoever comes first starts, whoever comes meanwhile helps. */
void convt3d_correlate_need_numbers(const convt3d_call *call) {
    convt3d_packed *packed = call->packed;
    const int64_t tasks = convt3d_correlate_pack_tasks(call->plan);
    if (!__atomic_load_n(&packed->lacks_numbers, __ATOMIC_ACQUIRE)) return;
    for (;;) {
        const int64_t index = __atomic_fetch_add(&packed->next, 1, __ATOMIC_RELAXED);
        if (index >= tasks) break;
        const target t = place(call->plan, (char *)packed, index);
        pack_numbers(call->plan, &call->weight, &t);
        if (__atomic_add_fetch(&packed->done, 1, __ATOMIC_ACQ_REL) == tasks)
            __atomic_store_n(&packed->lacks_numbers, 0, __ATOMIC_RELEASE);
    }
    while (__atomic_load_n(&packed->lacks_numbers, __ATOMIC_ACQUIRE)) sched_yield();
}
