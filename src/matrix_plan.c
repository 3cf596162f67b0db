/* matrix_plan: which layers the products of matrices serve, their tiles and scratch.
 * SPDX-License-Identifier: MIT */
#include "matrix.h"
#include "geometry.h"

#include <stdlib.h>
#include <string.h>

/* Whether the other engine may multiply terms. */
static int has_terms(const convt3d_plan *plan) {
    return plan->kernels->terms && plan->geometry.element == sizeof(float);
}

enum {
    LEAST_INPUTS = 16,        /* input channels of a group: fewer are no work for tiles */
    LEAST_VECTORS = 2,        /* of a row of weights */
    LINE_BYTES = 8 * 1 << 20, /* of a sample's lines */
    MOST_TAPS = 512,          /* whose sums a task has all at once */
    TASK_TILES = 16,          /* of rows, in backward_input, at most */
    TASK_LINES = 32           /* of results in a task: two cache lines of a row of weights */
};

/* The most positions of a sample: more pay for packing weights, and are better cut into tasks of
 * rows, which needs no copies of the large tensor. */
static int64_t most_positions(const convt3d_plan *plan) {
    if (plan->direction == CONVT3D_BACKWARD_WEIGHT) return 4096;
    if (plan->direction == CONVT3D_BACKWARD_INPUT) return 512;
    return has_terms(plan) ? 256 : 1024; /* terms pay even sooner */
}

/* Each output of the axis meets one tap, each tap all inputs. */
static int is_apart(const convt3d_axis *a) {
    return a->kernel == a->stride && (a->kernel == 1 || a->dilation == 1) && !a->before &&
           !a->after && a->out == a->in * a->stride;
}

/* Those that are lines beforehand: the input, or all taps of the output. */
static int64_t lines_of(const convt3d_plan *plan, const convt3d_matrix *c) {
    return plan->geometry.groups * (plan->direction == CONVT3D_BACKWARD_INPUT ? c->m : c->inputs);
}

/* Whether the layer is served; its sizes.  The batch doesn't count. */
static int serves(const convt3d_plan *plan, convt3d_matrix *c) {
    const convt3d_geometry *g = &plan->geometry;
    const int64_t most = most_positions(plan);
    size_t bytes;
    if (g->stored != g->element) return 0; /* weights of 16 bits are no numbers as they lie */
    if (has_terms(plan) && plan->precision != CONVT3D_PRECISION_HIGHEST) return 0;
    c->inputs = g->group_inputs;
    c->positions = c->taps = 1;
    for (int a = 0; a < 3; a++) {
        if (!is_apart(&g->axis[a]) || g->axis[a].in > most) return 0;
        c->positions *= g->axis[a].in;
        c->taps *= g->axis[a].kernel; /* sizes of the weights, which were checked */
    }
    c->m = g->group_outputs * c->taps;
    if (g->axis[2].kernel > CONVT3D_TEETH || c->taps > MOST_TAPS || c->positions > most) return 0;
    if (c->inputs < LEAST_INPUTS || c->m < LEAST_VECTORS * plan->type->lanes) return 0;
    const int64_t lines[2] = {lines_of(plan, c), c->positions};
    return g->batch && c->positions && convt3d_bytes(lines, 2, g->element, &bytes) &&
           bytes <= LINE_BYTES;
}

/* Input channels of a task of backward_input: a tile where there is one panel of columns, which
 * all are in the cache; else whole tiles, two tasks for each thread. */
static int64_t task_inputs(const convt3d_plan *plan, const convt3d_matrix *c) {
    const int64_t tiles = convt3d_ceil_div(c->inputs, c->tiles.rows);
    const int64_t each = tiles * plan->geometry.groups / (2 * plan->threads);
    if (c->line <= c->tiles.vectors * plan->type->lanes) return c->tiles.rows;
    return min64(c->inputs, c->tiles.rows * min64(max64(each, 1), TASK_TILES));
}

static int size_scratch(const convt3d_plan *plan, convt3d_matrix *c) {
    const convt3d_geometry *g = &plan->geometry;
    const int64_t lanes = plan->type->lanes, width = c->tiles.vectors * lanes;
    const int backward_weight = plan->direction == CONVT3D_BACKWARD_WEIGHT;
    const int64_t results = c->channels * (plan->direction == CONVT3D_FORWARD ? c->taps : 1);
    const int64_t lines = backward_weight ? width : 2;
    const int64_t packed =
        backward_weight ? width * CONVT3D_MATRIX_CHAIN : results * (CONVT3D_MATRIX_STEPS + lanes);
    const int64_t sums = backward_weight ? 2 * c->inputs * width : results * c->line;
    size_t total = 0, own = 0;
    if (!convt3d_grow(&total, (size_t)g->in_channels, (size_t)c->pitch * g->element)) return 0;
    c->at_bias = total = convt3d_round_up(total);
    if (backward_weight && !convt3d_grow(&total, (size_t)(g->groups * c->m), sizeof(double)))
        return 0;
    c->at_columns = total = convt3d_round_up(total);
    if (!convt3d_grow(&total, (size_t)lines_of(plan, c), (size_t)c->line * g->element)) return 0;
    c->at_threads = convt3d_round_up(total);
    if (!convt3d_grow(&own, (size_t)lines, (size_t)c->line * g->element)) return 0;
    c->at_packed = own = convt3d_round_up(own);
    if (!convt3d_grow(&own, (size_t)packed, g->element)) return 0;
    c->at_sums = own = convt3d_round_up(own);
    if (!convt3d_grow(&own, (size_t)(sums + lanes), g->element)) return 0; /* stores read beyond */
    c->thread_bytes = convt3d_round_up(own);
    return 1;
}

/* Samples of a block: as many columns as the largest sample may have, as lines that stay small. */
static int64_t block_samples(const convt3d_plan *plan, const convt3d_matrix *c) {
    const int64_t bytes = lines_of(plan, c) * c->positions * (int64_t)plan->geometry.element;
    const int64_t most = min64(most_positions(plan) / c->positions, LINE_BYTES / bytes);
    return min64(plan->geometry.batch, most);
}

convt3d_status convt3d_matrix_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                      convt3d_error *err) {
    const convt3d_geometry *g = &plan->geometry;
    const int64_t lanes = plan->type->lanes;
    convt3d_matrix found = {0}, *c = &found;
    (void)why;
    if (!serves(plan, c)) return CONVT3D_OK;
    c->pitch = convt3d_ceil_div(c->m, lanes) * lanes;
    c->samples = block_samples(plan, c);
    c->line = convt3d_ceil_div(c->samples * c->positions, lanes) * lanes;
    c->tiles = convt3d_tiles_choose(
        plan->type, plan->direction == CONVT3D_FORWARD ? c->m : c->inputs,
        (plan->direction == CONVT3D_BACKWARD_WEIGHT ? c->pitch : c->line) / lanes, 0, 0);
    c->channels = plan->direction == CONVT3D_FORWARD
                      ? min64(g->group_outputs, max64(1, TASK_LINES / c->taps))
                      : task_inputs(plan, c);
    if (!size_scratch(plan, c)) return CONVT3D_OK;
    plan->direct_details = malloc(sizeof *c);
    if (!plan->direct_details) return convt3d_fail_nomem(err, "a plan", sizeof *c);
    memcpy(plan->direct_details, c, sizeof *c);
    *accepted = 1;
    return CONVT3D_OK;
}

int convt3d_matrix_scratch(const convt3d_plan *plan, int32_t threads, size_t *bytes) {
    const convt3d_matrix *c = plan->direct_details;
    *bytes = c->at_threads;
    return convt3d_grow(bytes, (size_t)threads, c->thread_bytes);
}

void convt3d_matrix_describe(const convt3d_plan *plan, convt3d_text *text) {
    const convt3d_matrix *c = plan->direct_details;
    const int64_t columns = c->samples * c->positions;
    convt3d_text_add(text,
                     "weights in place: products of matrices, %lld input channels, %lld output "
                     "channels by taps, %lld columns; tile of %lld rows by %lld vectors\n",
                     (long long)c->inputs, (long long)c->m, (long long)columns,
                     (long long)c->tiles.rows, (long long)c->tiles.vectors);
}
