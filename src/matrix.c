/* matrix: the products of small layers, run.
 * SPDX-License-Identifier: MIT */
#include "matrix.h"
#include "geometry.h"
#include "outer.h"

#include <string.h>

/* A call, and the block of samples that it is at. */
typedef struct block {
    convt3d_call *call;
    const convt3d_matrix *c;
    int64_t n, samples;
    int64_t vectors, panels; /* of the block's columns */
    char *weight;            /* [ci][m], the caller's or the copy */
    int64_t weight_row;
} block;

static int64_t element_of(const block *b) {
    return (int64_t)b->call->plan->geometry.element;
}

static char *columns_of(const block *b) {
    return b->call->scratch + b->c->at_columns;
}

static double *bias_of(const block *b) {
    return (double *)(b->call->scratch + b->c->at_bias);
}

static char *thread_scratch(const block *b, int thread) {
    return b->call->scratch + b->c->at_threads + (size_t)thread * b->c->thread_bytes;
}

/* All rows of a product whose columns are one panel: a[r*a_row + j*a_step] times 'b', rows of
 * this many vectors, to 'sums'. */
static void multiply(const block *t, const char *a, int64_t a_row, int64_t a_step, int64_t rows,
                     int64_t steps, const char *b, int64_t b_step, int64_t vectors, char *sums,
                     int64_t sums_row, int accumulate) {
    const convt3d_type_kernels *type = t->call->plan->type;
    const convt3d_segment whole = {0, 0, steps};
    const int64_t tiles = convt3d_ceil_div(rows, t->c->tiles.rows);
    for (int64_t i = 0; i < tiles; i++) {
        const int64_t r0 = convt3d_part_start(rows, tiles, i);
        const int64_t high = convt3d_part_start(rows, tiles, i + 1) - r0;
        const convt3d_tile tile = {.a = a + r0 * a_row * element_of(t),
                                   .b = b,
                                   .c = sums + r0 * sums_row * element_of(t),
                                   .a_step = a_step,
                                   .a_row = a_row,
                                   .b_step = b_step,
                                   .c_row = sums_row,
                                   .segments = &whole,
                                   .count = 1,
                                   .accumulate = accumulate};
        (a_row == 1 ? type->gemm : type->gemm_apart)[high - 1][vectors - 1](&tile);
    }
}

/* ---- Lines into columns ---------------------------------------------------------------------- */

/* Line 'index' of a group's 'lines', to panels: [panel][line][the panel's columns]. */
static void to_panels(const block *b, char *group, int64_t lines, int64_t index, char *line) {
    const int64_t lanes = b->call->plan->type->lanes, columns = b->samples * b->c->positions;
    memset(line + columns * element_of(b), 0,
           (size_t)((b->vectors * lanes - columns) * element_of(b)));
    for (int64_t i = 0; i < b->panels; i++) {
        const int64_t at = convt3d_part_start(b->vectors, b->panels, i) * lanes;
        const int64_t width = convt3d_part_start(b->vectors, b->panels, i + 1) * lanes - at;
        memcpy(group + (at * lines + index * width) * element_of(b), line + at * element_of(b),
               (size_t)(width * element_of(b)));
    }
}

/* One channel of the input, or all taps of one of the output. */
static void load_channel(const block *b, convt3d_matrix_side side, int64_t channel, int thread) {
    const int64_t taps = side.kernel[0] * side.kernel[1] * side.kernel[2];
    const int64_t lines = side.channels * taps, group = channel / side.channels;
    char *line = thread_scratch(b, thread), *next = line + b->c->line * element_of(b);
    char *to = columns_of(b) + group * lines * b->c->line * element_of(b);
    const int pairs = convt3d_matrix_in_pairs(&side);
    for (int64_t tap = 0; tap < taps; tap += 1 + pairs) {
        const int64_t index = channel % side.channels * taps + tap;
        convt3d_matrix_load(b->call, &side, channel, tap, b->n, b->samples, line,
                            pairs ? next : NULL);
        to_panels(b, to, lines, index, line);
        if (pairs) to_panels(b, to, lines, index + 1, next);
    }
}

static void load_input(void *arg, int64_t index, int thread) {
    const block *b = arg;
    load_channel(b, convt3d_matrix_small(b->call, &b->call->input), index, thread);
}

static void load_output(void *arg, int64_t index, int thread) {
    const block *b = arg;
    load_channel(b, convt3d_matrix_large(b->call), index, thread);
}

/* ---- forward, backward_input ----------------------------------------------------------------- */

/* 'rows' pieces of rows of weights, close together: rows that are a power of two apart share
 * a few lines of the cache. */
static void copy_piece(const block *b, const char *from, int64_t rows, int64_t count, char *to,
                       int64_t to_row) {
    enum {
        AHEAD = 16 /* rows: no CPU foresees the next one */
    };
    const int64_t bytes = count * element_of(b), row = b->weight_row * element_of(b);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t at = 0; at < bytes && i + AHEAD < rows; at += 64)
            __builtin_prefetch(from + (i + AHEAD) * row + at);
        memcpy(to + i * to_row * element_of(b), from + i * row, (size_t)bytes);
    }
}

/* Some result channels of a group, all columns: sums, then to the caller. */
static void product_task(void *arg, int64_t index, int thread) {
    const block *b = arg;
    const convt3d_matrix *c = b->c;
    const int forward = b->call->plan->direction == CONVT3D_FORWARD;
    const int64_t lanes = b->call->plan->type->lanes, element = element_of(b);
    const convt3d_matrix_side side = forward ? convt3d_matrix_large(b->call)
                                             : convt3d_matrix_small(b->call, &b->call->grad_input);
    const int64_t tasks = convt3d_ceil_div(side.channels, c->channels), group = index / tasks;
    const int64_t taps = forward ? c->taps : 1, steps = forward ? c->inputs : c->m;
    const int64_t first = convt3d_part_start(side.channels, tasks, index % tasks);
    const int64_t end = convt3d_part_start(side.channels, tasks, index % tasks + 1);
    const int64_t rows = (end - first) * taps;
    const char *columns = columns_of(b) + group * steps * c->line * element;
    const char *weight = b->weight + (group * c->inputs * b->weight_row +
                                      first * taps * (forward ? 1 : b->weight_row)) *
                                         element;
    char *piece = thread_scratch(b, thread) + c->at_packed;
    char *sums = thread_scratch(b, thread) + c->at_sums;
    /* A panel alone reads the weights once. */
    const int once = !forward && b->panels == 1;
    const int64_t most = once ? steps : CONVT3D_MATRIX_STEPS;
    for (int64_t k = 0; k < steps; k += most) {
        const int64_t some = min64(most, steps - k);
        const int64_t a_row = forward ? 1 : once ? b->weight_row : some + lanes;
        if (forward)
            copy_piece(b, weight + k * b->weight_row * element, some, rows, piece, rows);
        else if (!once)
            copy_piece(b, weight + k * element, rows, some, piece, a_row);
        for (int64_t i = 0; i < b->panels; i++) {
            const int64_t v0 = convt3d_part_start(b->vectors, b->panels, i);
            const int64_t v = convt3d_part_start(b->vectors, b->panels, i + 1) - v0;
            multiply(b, once ? weight : piece, a_row, forward ? rows : 1, rows, some,
                     columns + (v0 * steps + k * v) * lanes * element, v * lanes, v,
                     sums + v0 * lanes * element, c->line, k > 0);
        }
    }
    for (int64_t j = first; j < end; j++)
        convt3d_matrix_store(b->call, &side, group * side.channels + j, b->n, b->samples,
                             sums + (j - first) * taps * c->line * element);
}

/* ---- backward_weight ------------------------------------------------------------------------- */

/* A panel of columns m of grad_weight, all of the group's rows: adds a block's positions. */
static void gradient_task(void *arg, int64_t index, int thread) {
    const block *b = arg;
    const convt3d_matrix *c = b->c;
    const convt3d_plan *plan = b->call->plan;
    const convt3d_matrix_side side = convt3d_matrix_large(b->call);
    const int64_t lanes = plan->type->lanes, element = element_of(b), line = c->line * element;
    const int64_t panels = convt3d_ceil_div(c->pitch / lanes, c->tiles.vectors);
    const int64_t group = index / panels, columns = b->samples * c->positions;
    const int64_t m0 = convt3d_part_start(c->pitch / lanes, panels, index % panels) * lanes;
    const int64_t m1 = convt3d_part_start(c->pitch / lanes, panels, index % panels + 1) * lanes;
    const int64_t rows = min64(m1, c->m) - m0, width = m1 - m0;
    const char *input = columns_of(b) + group * c->inputs * line;
    char *lines = thread_scratch(b, thread), *panel = lines + c->at_packed;
    char *gradient = b->weight + (group * c->inputs * b->weight_row + m0) * element;
    char *sums = lines + c->at_sums;
    const int pairs = convt3d_matrix_in_pairs(&side); /* m0 is even */
    for (int64_t i = 0; i < rows; i += 1 + pairs)
        convt3d_matrix_load(b->call, &side, group * side.channels + (m0 + i) / c->taps,
                            (m0 + i) % c->taps, b->n, b->samples, lines + i * line,
                            pairs ? lines + (i + 1) * line : NULL);
    for (int64_t i = 0; i < rows && b->call->bias.data; i++)
        bias_of(b)[group * c->m + m0 + i] +=
            plan->type->own.sum(lines + i * line, 0, 1, 1, columns);
    const int once = b->n == 0 && columns <= CONVT3D_MATRIX_CHAIN;
    const int64_t size = c->inputs * width;
    for (int64_t p = 0; p < columns; p += CONVT3D_MATRIX_CHAIN) {
        const int64_t some = min64(CONVT3D_MATRIX_CHAIN, columns - p);
        char *chain = sums + (p ? size * element : 0);
        plan->type->own.transpose(panel, width, lines + p * element, c->line, 1, rows, width, some);
        multiply(b, input + p * element, b->vectors * lanes, 1, c->inputs, some, panel, width,
                 width / lanes, once ? gradient : chain, once ? b->weight_row : width, 0);
        if (p) plan->type->add(sums, 1, chain, size);
    }
    for (int64_t i = 0; i < c->inputs && !once; i++) {
        char *to = gradient + i * b->weight_row * element;
        if (b->n)
            plan->type->add(to, 1, sums + i * width * element, width);
        else
            memcpy(to, sums + i * width * element, (size_t)(width * element));
    }
}

static void write_task(void *arg, int64_t index, int thread) {
    const block *b = arg;
    (void)thread;
    convt3d_matrix_write(b->call, index, b->weight + index * b->weight_row * element_of(b));
}

static void run_gradient(block *b) {
    const convt3d_matrix *c = b->c;
    const convt3d_geometry *g = &b->call->plan->geometry;
    convt3d_job *job = &b->call->job;
    const int64_t lanes = b->call->plan->type->lanes;
    const int in_place =
        convt3d_matrix_is_dense(b->call) && !b->call->accumulate && c->pitch == c->m;
    if (!in_place) {
        b->weight = b->call->scratch;
        b->weight_row = c->pitch;
    }
    if (b->call->bias.data) memset(bias_of(b), 0, (size_t)(g->groups * c->m) * sizeof(double));
    b->panels = 1; /* lines are read by elements */
    for (b->n = 0; b->n < g->batch && !job->cancelled; b->n += b->samples) {
        b->samples = min64(c->samples, g->batch - b->n);
        b->vectors = convt3d_ceil_div(b->samples * c->positions, lanes);
        const double done = 0.95 * (double)(b->n + b->samples) / (double)g->batch;
        convt3d_parallel(job, 0.9 * done, g->in_channels, load_input, b);
        convt3d_parallel(job, done,
                         g->groups * convt3d_ceil_div(c->pitch / lanes, c->tiles.vectors),
                         gradient_task, b);
    }
    convt3d_parallel(job, 1, in_place ? 0 : g->in_channels, write_task, b);
    if (b->call->bias.data && !job->cancelled)
        convt3d_outer_store_bias(b->call, bias_of(b), c->taps);
}

/* ---- The algorithm --------------------------------------------------------------------------- */

static void copy_task(void *arg, int64_t index, int thread) {
    const block *b = arg;
    (void)thread;
    convt3d_matrix_copy(b->call, index, b->weight + index * b->weight_row * element_of(b));
}

static void run_products(block *b) {
    const convt3d_matrix *c = b->c;
    const convt3d_geometry *g = &b->call->plan->geometry;
    convt3d_job *job = &b->call->job;
    const int64_t lanes = b->call->plan->type->lanes;
    const int forward = b->call->plan->direction == CONVT3D_FORWARD;
    const int64_t channels = forward ? g->group_outputs : g->group_inputs;
    if (!convt3d_matrix_is_dense(b->call)) {
        b->weight = b->call->scratch;
        b->weight_row = c->pitch;
        convt3d_parallel(job, 0.05, g->in_channels, copy_task, b);
    }
    for (b->n = 0; b->n < g->batch && !job->cancelled; b->n += b->samples) {
        b->samples = min64(c->samples, g->batch - b->n);
        b->vectors = convt3d_ceil_div(b->samples * c->positions, lanes);
        b->panels = convt3d_ceil_div(b->vectors, c->tiles.vectors);
        const double done = (double)(b->n + b->samples) / (double)g->batch;
        convt3d_parallel(job, 0.05 + 0.9 * done, forward ? g->in_channels : g->out_channels,
                         forward ? load_input : load_output, b);
        convt3d_parallel(job, b->n + b->samples == g->batch ? 1 : 0.05 + 0.95 * done,
                         g->groups * convt3d_ceil_div(channels, c->channels), product_task, b);
    }
}

static void run(convt3d_call *call) {
    block b = {.call = call,
               .c = call->plan->direct_details,
               .weight = call->weight.data,
               .weight_row = call->weight.stride[0]};
    if (call->plan->direction == CONVT3D_BACKWARD_WEIGHT)
        run_gradient(&b);
    else
        run_products(&b);
}

const convt3d_algorithm convt3d_engine_matrix = {
    .name = "engine",
    .prepare = convt3d_matrix_prepare,
    .scratch = convt3d_matrix_scratch,
    .run = run,
    .describe = convt3d_matrix_describe,
};
