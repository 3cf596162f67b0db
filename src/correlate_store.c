/* correlate_store: results out of a task's tiles, whatever the strides.
 * SPDX-License-Identifier: MIT */
#include "correlate.h"

#include <string.h>

/* ---- Activations ---------------------------------------------------------------------------- */

/* An element of either type. */
typedef union either {
    float narrow;
    double wide;
} either;

static const either no_bias;

static double load(const convt3d_task *t, const void *p) {
    return t->plan->geometry.element == 4 ? (double)*(const float *)p : *(const double *)p;
}

/* 'count' elements in place, bias included; what stores them then adds -0, which
 * changes nothing, from t->zero. */
static void activate(const convt3d_task *t, char *row, int64_t count, double bias) {
    t->type->activate(row, count, bias, (int)t->plan->activation, t->plan->negative_slope);
}

/* Whether rows are activated in the tile; folded ones only after the fold. */
static int in_tile(const convt3d_task *t) {
    return t->plan->activation != CONVT3D_ACTIVATION_NONE &&
           t->plan->geometry.axis[2].mode == CONVT3D_ZEROS;
}

/* Of all lanes, one channel's tile rows. */
static void activate_lanes(const convt3d_task *t, char *tile, double bias) {
    const convt3d_correlate *c = t->c;
    for (int64_t i = 0; i < c->lanes; i++) {
        const int64_t q0 = max64(c->lane[i].q0, t->q0), q1 = min64(c->lane[i].q1, t->q1);
        if (q0 < q1) activate(t, tile + i * t->lane_size, (q1 - q0) * t->run, bias);
    }
}

/* ---- Out of the tile, position by position ---------------------------------------------- */

/* The phase of position u, and its place among the positions of that phase, as a tile
 * row holds them: bytes from the row's start in lane 0; -1: no tap reaches the phase. */
static int64_t tooth_at(const convt3d_task *t, int64_t u) {
    const int64_t stride = t->plan->geometry.axis[2].stride;
    for (int64_t i = 0; i < t->c->lanes; i++) {
        const convt3d_lane *lane = &t->c->lane[i];
        if (lane->phase == u % stride)
            return i * t->lane_size + (u / stride - lane->q0) * (int64_t)t->plan->geometry.element;
    }
    return -1;
}

void convt3d_correlate_set_teeth(convt3d_task *t) {
    const convt3d_axis *axis = &t->c->axis[2];
    const int64_t u0 = axis->mode == CONVT3D_ZEROS ? axis->before : 0;
    t->teeth = 0;
    if (t->plan->direction != CONVT3D_FORWARD || axis->stride > CONVT3D_TEETH) return;
    if (in_tile(t) && t->c->lanes < axis->stride) return; /* holes have a value of their own */
    for (; t->teeth < axis->stride; t->teeth++) t->tooth[t->teeth] = tooth_at(t, u0 + t->teeth);
}

/* Too many phases for teeth: zeros first, then every stride-th position, lane by lane. */
static void store_sparse(const convt3d_task *t, const convt3d_movers *movers, const char *tile,
                         convt3d_lay lay, int64_t u0, int64_t u1) {
    const convt3d_correlate *c = t->c;
    const int64_t element = (int64_t)movers->element, step = lay.step;
    const int64_t stride = t->plan->geometry.axis[2].stride;
    char *to = lay.to;
    either hole = no_bias;
    const convt3d_lay given = lay;
    lay.lanes = 1;
    lay.how = CONVT3D_STORE_PLAIN;
    if (in_tile(t) && c->lanes < stride) {
        activate(t, (char *)&hole, 1, load(t, lay.bias));
        lay.bias = &hole;
    }
    lay.from[0] = t->zero;
    for (int64_t u = u0; u < u1 && c->lanes < stride; u += CONVT3D_ZEROS_LENGTH) {
        lay.to = to + (u - u0) * step * element;
        lay.count = min64(CONVT3D_ZEROS_LENGTH, u1 - u);
        movers->store(&lay);
    }
    lay.bias = in_tile(t) ? t->zero : given.bias;
    lay.step = stride * step;
    for (int64_t i = 0; i < c->lanes; i++) {
        const convt3d_lane *lane = &c->lane[i];
        lay.from[0] = tile + i * t->lane_size;
        lay.to = to + (lane->q0 * stride + lane->phase - u0) * step * element;
        lay.count = lane->q1 - lane->q0;
        movers->store(&lay);
    }
}

/* The positions u in [u0, u1) of all lanes to rows, of the caller's or the task's own: 'lay'
 * says where to and with what bias; without teeth it has one row. */
static void store_lanes(const convt3d_task *t, const convt3d_movers *movers, const char *tile,
                        convt3d_lay lay, int64_t u0, int64_t u1) {
    if (!t->teeth) {
        store_sparse(t, movers, tile, lay, u0, u1);
        return;
    }
    lay.lanes = t->teeth;
    lay.count = u1 - u0;
    for (int i = 0; i < t->teeth; i++) {
        lay.from[i] = t->tooth[i] < 0 ? t->zero : tile + t->tooth[i];
        lay.from_row[i] = t->tooth[i] < 0 ? 0 : t->cut->tile_pitch;
    }
    if (in_tile(t)) {
        lay.bias = t->zero;
        lay.bias_step = 0;
    }
    movers->store(&lay);
}

/* ---- Out of the tile, channels or samples side by side ----------------------------------- */

/* The block's channels and samples for positions [u0, u1), all of which no tap
 * reaches; block.to is that of u0. */
static void spread_zeros(const convt3d_task *t, const convt3d_movers *movers, convt3d_block block,
                         int64_t u0, int64_t u1) {
    const int64_t most = CONVT3D_ZEROS_LENGTH / block.count[2];
    char *to = block.to;
    block.from = t->zero;
    block.pitch = 0;
    for (int64_t u = u0; u < u1; u += most) {
        block.to = to + (u - u0) * block.step[1] * (int64_t)movers->element;
        block.count[1] = min64(most, u1 - u);
        movers->spread(&block);
    }
}

/* The same with f(bias), some channels at a time. */
static void spread_holes(const convt3d_task *t, const convt3d_movers *movers, convt3d_block block,
                         int64_t u0, int64_t u1) {
    enum {
        CHANNELS = 32
    };
    const int64_t element = (int64_t)t->plan->geometry.element, channels = block.count[0];
    const int64_t bias_step = block.bias_step;
    const char *bias = block.bias;
    char *to = block.to;
    union {
        float narrow[CHANNELS];
        double wide[CHANNELS];
    } values;
    for (int64_t c = 0; c < channels; c += CHANNELS) {
        block.count[0] = min64(CHANNELS, channels - c);
        const convt3d_rows rows = {.to = &values,
                                   .from = bias + c * bias_step * element,
                                   .from_step = {0, 0, bias_step},
                                   .count = {1, 1, block.count[0]}};
        t->type->own.gather(&rows);
        activate(t, (char *)&values, block.count[0], 0);
        block.bias = &values;
        block.bias_step = 1;
        block.to = to + c * block.step[0] * (int64_t)movers->element;
        spread_zeros(t, movers, block, u0, u1);
    }
}

/* The same as store_lanes() for the block's channels, which start at 'tile', its
 * samples, and the task's strip; block.to is that of u0. */
static void spread_lanes(const convt3d_task *t, const convt3d_movers *movers, const char *tile,
                         convt3d_block block, int64_t u0, int64_t u1) {
    const convt3d_correlate *c = t->c;
    const int64_t element = (int64_t)movers->element;
    const int64_t stride = t->plan->geometry.axis[2].stride, step = block.step[1];
    char *to = block.to;
    if (c->lanes < stride) {
        int64_t from = u0, end = u1;
        if (t->q0 > c->first_position) from = max64(u0, t->q0 * stride);
        if (t->cut->strips > 1) end = min64(u1, t->q1 * stride);
        block.to = to + (from - u0) * step * element;
        if (in_tile(t))
            spread_holes(t, movers, block, from, end);
        else
            spread_zeros(t, movers, block, from, end);
    }
    if (in_tile(t)) {
        block.bias = t->zero;
        block.bias_step = 0;
    }
    block.step[1] = stride * step;
    for (int64_t i = 0; i < c->lanes; i++) {
        const convt3d_lane *lane = &c->lane[i];
        const int64_t q0 = max64(lane->q0, t->q0), q1 = min64(lane->q1, t->q1);
        if (q0 >= q1) continue;
        block.from = tile + i * t->lane_size;
        block.to = to + (q0 * stride + lane->phase - u0) * step * element;
        block.count[1] = q1 - q0;
        movers->spread(&block);
    }
}

/* ---- Folded widths ------------------------------------------------------------------------- */

/* Full rows, then their borders folded onto the part that is kept. */
static void store_folded(const convt3d_task *t, const char *tile, convt3d_block block) {
    const convt3d_axis *axis = &t->plan->geometry.axis[2];
    const int64_t element = (int64_t)t->plan->geometry.element, run = block.count[2];
    convt3d_span span[3];
    int spans = convt3d_fold_spans(axis, span);
    char *kept = t->full + axis->before * run * element;
    if (run == 1) {
        const convt3d_lay lay = {.to = t->full, .step = 1, .rows = 1, .bias = &no_bias};
        store_lanes(t, &t->type->own, tile, lay, 0, axis->full);
    } else {
        convt3d_block full = block;
        full.to = t->full;
        full.step[1] = run;
        full.step[2] = 1;
        full.bias = &no_bias;
        spread_lanes(t, &t->type->own, tile, full, 0, axis->full);
    }
    for (int i = 1; i < spans; i++) {
        char *to = kept + span[i].to * run * element;
        const char *from = t->full + span[i].from * run * element;
        if (run == 1)
            t->type->add(to, span[i].step, from, span[i].count);
        else
            for (int64_t j = 0; j < span[i].count; j++)
                t->type->add(to + j * span[i].step * run * element, 1, from + j * run * element,
                             run);
    }
    if (t->plan->activation != CONVT3D_ACTIVATION_NONE) {
        activate(t, kept, axis->out * run, load(t, block.bias));
        block.bias = t->zero;
    }
    block.from = kept;
    block.count[1] = axis->out;
    t->movers->spread(&block);
}

/* ---- Carries -----------------------------------------------------------------------------------
 */

/* That of channel m, counted from the first group's first, at result depth d. */
static convt3d_carry *carry_of(const convt3d_task *t, int64_t m, int64_t d) {
    const int64_t depth = t->cut->rolling ? d - t->first[0] : 0;
    return t->carry ? t->carry + depth * t->cut->groups * t->c->m + m : NULL;
}

/* ---- Merged phases --------------------------------------------------------------------------- */

/* All channels m0 to m1, of whole rows: each goes to the row of its phases, if there is
 * one. */
static void store_merged(const convt3d_task *t, char *tile, int64_t m0, int64_t m1, int64_t d,
                         int64_t h) {
    const convt3d_correlate *c = t->c;
    const convt3d_axis *axis = t->plan->geometry.axis;
    const convt3d_view *bias = &t->call->bias, *to = t->to;
    const int64_t element = (int64_t)t->plan->geometry.element, *stride = to->stride;
    const int64_t channels = c->m / convt3d_phases(c);
    const int64_t row = t->cut->tile_pitch * element;
    for (int64_t m = m0; m < m1; m += c->merged[2], tile += c->merged[2] * row) {
        int64_t phase[3];
        const int64_t channel = t->group * channels + convt3d_correlate_channel(c, m, phase);
        const int64_t od = (c->axis[0].before + d) * c->merged[0] + phase[0] - axis[0].before;
        const int64_t oh = (c->axis[1].before + h) * c->merged[1] + phase[1] - axis[1].before;
        const void *with =
            bias->data ? bias->data + channel * bias->stride[0] * element : (const char *)&no_bias;
        convt3d_lay lay = {.step = stride[4],
                           .lanes = (int)c->merged[2],
                           .rows = 1,
                           .count = axis[2].out,
                           .bias = in_tile(t) ? t->zero : with,
                           .how = t->stream ? CONVT3D_STORE_PAST : CONVT3D_STORE_PLAIN,
                           .carry = carry_of(t, m - phase[1] * channels * c->merged[2], d)};
        if (od < 0 || od >= axis[0].out || oh < 0 || oh >= axis[1].out) continue;
        for (int64_t i = 0; i < c->merged[2]; i++) {
            const int64_t u = axis[2].before + i;
            if (in_tile(t)) activate(t, tile + i * row, c->axis[2].out, load(t, with));
            lay.from[i] =
                tile + u % c->merged[2] * row + (u / c->merged[2] - c->axis[2].before) * element;
        }
        lay.to = to->data +
                 (t->sample * stride[0] + channel * stride[1] + od * stride[2] + oh * stride[3]) *
                     (int64_t)t->movers->element;
        t->movers->store(&lay);
    }
}

/* ---- A result row ---------------------------------------------------------------------------- */

/* Channels of one sample, each with its positions side by side. */
static void store_rows(const convt3d_task *t, const char *tile, const convt3d_block *block,
                       convt3d_carry *carry) {
    const convt3d_axis *axis = &t->plan->geometry.axis[2];
    convt3d_lay lay = {.to = block->to,
                       .to_row = block->step[0],
                       .step = block->step[1],
                       .rows = block->count[0],
                       .bias = block->bias,
                       .bias_step = block->bias_step,
                       .how = block->add  ? CONVT3D_STORE_ADD
                              : t->stream ? CONVT3D_STORE_PAST
                                          : CONVT3D_STORE_PLAIN,
                       .carry = carry};
    if (t->plan->direction == CONVT3D_FORWARD) {
        store_lanes(t, t->movers, tile, lay, axis->before, axis->before + axis->out);
        return;
    }
    lay.lanes = 1;
    lay.count = axis->in;
    lay.from[0] = tile;
    lay.from_row[0] = block->pitch;
    t->movers->store(&lay);
}

void convt3d_correlate_store(const convt3d_task *t, int64_t m0, int64_t m1, int64_t d, int64_t h,
                             int64_t position) {
    const convt3d_axis *axis = &t->plan->geometry.axis[2];
    const int64_t element = (int64_t)t->plan->geometry.element, *stride = t->to->stride;
    const int64_t channel = t->group * t->c->m + m0, stored = (int64_t)t->movers->element;
    const convt3d_view *bias = &t->call->bias;
    int forward = t->plan->direction == CONVT3D_FORWARD;
    int folded = forward && axis->mode != CONVT3D_ZEROS;
    int rows = t->cut->run == 1 && !convt3d_correlate_across(t, t->to);
    int one_by_one = folded || (rows && forward && !t->teeth);
    int64_t q0 = max64(t->q0, 0); /* of backward_input's one lane */
    convt3d_block block = {
        .pitch = t->cut->tile_pitch,
        .to =
            t->to->data +
            (t->sample * stride[0] + channel * stride[1] + d * stride[2] + h * stride[3]) * stored,
        .step = {stride[1], stride[4], stride[0]},
        .count = {one_by_one ? 1 : m1 - m0, axis->in, t->run},
        .bias = forward && bias->data ? bias->data + channel * bias->stride[0] * element
                                      : (const char *)&no_bias,
        .bias_step = forward && bias->data ? bias->stride[0] : 0,
        .add = !forward && t->call->accumulate};
    char *tile = t->tile + position * element;
    if (convt3d_is_merged(t->c)) {
        store_merged(t, tile, m0, m1, d, h);
        return;
    }
    for (int64_t m = m0; m < m1 && in_tile(t); m++)
        activate_lanes(t, tile + (m - m0) * t->cut->tile_pitch * element,
                       load(t, (const char *)block.bias + (m - m0) * block.bias_step * element));
    for (int64_t m = m0; m < m1; m += block.count[0]) {
        if (folded) {
            store_folded(t, tile, block);
        } else if (rows) {
            store_rows(t, tile, &block, carry_of(t, m, d));
        } else if (forward) {
            spread_lanes(t, t->movers, tile, block, axis->before, axis->before + axis->out);
        } else {
            block.from = tile;
            block.to = (char *)block.to + q0 * stride[4] * stored;
            block.count[1] = min64(t->q1, axis->in) - q0;
            t->movers->spread(&block);
        }
        tile += t->cut->tile_pitch * element;
        block.to = (char *)block.to + stride[1] * stored;
        block.bias = (const char *)block.bias + block.bias_step * element;
    }
}
