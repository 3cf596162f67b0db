/* matrix: small layers whose taps never overlap, as products of matrices.
 *
 * Where kernel_size is stride and nothing is cropped, each output position meets one tap
 * of one input position.  With m = (output channel, tap) and p = (sample, position of the
 * input), in each group
 *
 *     forward          y[m, p]  = sum over ci of w[ci, m] * x[ci, p]
 *     backward_input   dx[ci, p] = sum over m of w[ci, m] * dy[m, p]
 *     backward_weight  dw[ci, m] = sum over p of x[ci, p] * dy[m, p]
 *
 * where w[ci, m] lies in the caller's memory as it is wanted.  Layers with few positions
 * and many channels take longer to pack their weights than to multiply them: this engine
 * reads them in place, and writes their gradients there.  It serves calls whose weights
 * aren't packed, beside the engine that does the others.
 *
 * The large tensor's rows are parted by tap; both become lines of all columns p of a block
 * of samples, each line padded to whole vectors.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_MATRIX_H
#define CONVT3D_MATRIX_H

#include "plan.h"
#include "tiles.h"

enum {
    CONVT3D_MATRIX_STEPS = 256, /* of a product at a time: a panel's stay in the cache */
    CONVT3D_MATRIX_CHAIN = 512  /* products that backward_weight adds up by themselves */
};

typedef struct convt3d_matrix {
    int64_t inputs, taps, m;    /* of a group: input channels; m = output channels * taps */
    int64_t pitch;              /* of a copied row of weights: m, padded to whole vectors */
    int64_t positions, samples; /* of a sample; of a block */
    int64_t line;               /* a block's columns, padded to whole vectors */
    convt3d_tiles tiles;        /* the largest tile */
    int64_t channels;           /* of a task: results of forward and backward_input */
    /* In scratch: the copy of the weights; a bias gradient's sums, one for each m; lines of
     * columns; the threads' own. */
    size_t at_bias, at_columns, at_threads, thread_bytes;
    /* In a thread's: lines; pieces of weights, or a panel of lines, turned; sums. */
    size_t at_packed, at_sums;
} convt3d_matrix;

/* matrix_plan.c; the rest of the algorithm is in matrix.c. */
convt3d_status convt3d_matrix_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                      convt3d_error *err);
int convt3d_matrix_scratch(const convt3d_plan *plan, int32_t threads, size_t *bytes);
void convt3d_matrix_describe(const convt3d_plan *plan, convt3d_text *text);

/* matrix_move.c: positions of samples n to n + samples, of one channel, taken at one tap, to a
 * line; and sums to the caller, all taps of a channel, line after line. */
typedef struct convt3d_matrix_side {
    const convt3d_view *view;
    int64_t channels;  /* of a group */
    int64_t kernel[3]; /* 1: the small tensor */
} convt3d_matrix_side;

convt3d_matrix_side convt3d_matrix_small(const convt3d_call *call, const convt3d_view *view);
convt3d_matrix_side convt3d_matrix_large(const convt3d_call *call);
void convt3d_matrix_load(const convt3d_call *call, const convt3d_matrix_side *side, int64_t channel,
                         int64_t tap, int64_t n, int64_t samples, char *line, char *odd);
/* Whether a tap and the one after it can be loaded at once. */
int convt3d_matrix_in_pairs(const convt3d_matrix_side *side);
void convt3d_matrix_store(const convt3d_call *call, const convt3d_matrix_side *side,
                          int64_t channel, int64_t n, int64_t samples, char *lines);

/* The weights, or their gradient, as [ci][m]: whether they lie so; a copy of row ci; a row of
 * the gradient, written. */
int convt3d_matrix_is_dense(const convt3d_call *call);
void convt3d_matrix_copy(const convt3d_call *call, int64_t ci, char *row);
void convt3d_matrix_write(const convt3d_call *call, int64_t ci, const char *row);

#endif
