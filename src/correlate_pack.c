/* correlate_pack: the weights of forward and backward_input, packed.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"

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

/* All taps of one source channel, for 'rows' result channels 'm_stride' apart: those that
 * lie side by side in the caller's memory are read together.  Zeros up to 'padded'. */
static void pack_taps(const convt3d_plan *plan, const convt3d_view *w, char *to, const char *from,
                      int64_t m_stride, int64_t rows, int64_t padded) {
    const convt3d_correlate *c = plan->details;
    const int64_t element = (int64_t)plan->geometry.element, tap = c->k * c->panel;
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

void convt3d_correlate_pack(const convt3d_plan *plan, const convt3d_view *w, convt3d_packed *packed,
                            int64_t index) {
    const convt3d_correlate *c = plan->details;
    const convt3d_geometry *g = &plan->geometry;
    const int64_t element = (int64_t)g->element, tap = c->k * c->panel;
    const int64_t stored = (int64_t)g->stored;
    const int64_t parts = convt3d_ceil_div(c->k, PACK_CHANNELS);
    int forward = plan->direction == CONVT3D_FORWARD;
    int64_t group = index / parts / c->panels, m0 = index / parts % c->panels * c->panel;
    int64_t m_stride = w->stride[forward ? 1 : 0], k_stride = w->stride[forward ? 0 : 1];
    int64_t k0 = index % parts * PACK_CHANNELS, rows = min64(c->panel, c->m - m0);
    char *to = (char *)packed + CONVT3D_ALIGN + index / parts * c->taps * tap * element;
    const char *from = w->data + group * g->group_inputs * w->stride[0] * stored;
    const int64_t k1 = min64(k0 + PACK_CHANNELS, c->k);
    /* A few rows' elements of all source channels, where these are near each other. */
    const int64_t block =
        k_stride < m_stride && !convt3d_is_merged(c) ? plan->type->lanes : c->panel;
    int bad = 0;
    for (int64_t m = 0; m < c->panel; m += block) {
        for (int64_t k = k0; k < k1; k++) {
            char *row = to + k * c->panel * element;
            const char *source = from + k * k_stride * stored;
            if (convt3d_is_merged(c))
                pack_merged(plan, w, row, source);
            else
                pack_taps(plan, w, row + m * element, source + (m0 + m) * m_stride * stored,
                          m_stride, max64(0, min64(block, rows - m)), min64(block, c->panel - m));
        }
    }
    for (int64_t i = 0; i < c->taps && !bad; i++)
        bad = plan->type->nonfinite(to + (i * tap + k0 * c->panel) * element, (k1 - k0) * c->panel);
    if (c->terms || (c->term_count && packed->whole))
        convt3d_correlate_pack_terms(plan, packed, index / parts, k0, k1);
    if (bad) __atomic_store_n(&packed->nonfinite, 1, __ATOMIC_RELAXED);
}
