/* outer: the engine's backward_weight: sums of outer products over positions.
 *
 *     dw[ci, co, k] = sum over positions i of x[ci, i] * dy[co, i's output through k]
 *
 * For one tap that is a matrix product whose reduction runs along positions.  One
 * tensor is read as vectors of channels, so that its rows are packed across, as
 * [row][position][channels]; the other is read one element at a time and stays as it
 * is, [row][channel][position], with grad_output's rows padded but not parted by
 * phase: a step of i is 'stride' elements of it.  A tile's rows are channels of that
 * other tensor, or, where grad_output has few, the taps of one kernel row.
 *
 * Where both tensors have a channel or two a group, vectors lie along positions, and
 * the sums of their lanes are added up at the end ("dots"): rows are then
 * [row][channel][position], grad_output's parted by phase.
 *
 * The positions are cut into chunks whose number depends on the layer only, and
 * the chunks' sums are added in their order: the bytes don't depend on threads.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_OUTER_H
#define CONVT3D_OUTER_H

#include "asks.h"
#include "plan.h"
#include "row.h"

/* One of the two tensors. */
typedef struct convt3d_side {
    int64_t channels;  /* of a group */
    int64_t positions; /* of a packed row */
    int64_t step;      /* elements from one x position to the next */
    int64_t rows;      /* the most rows of a block */
} convt3d_side;

typedef struct convt3d_outer {
    convt3d_side x, dy;
    int x_is_a;       /* A: the side that is read one element at a time */
    int64_t tap_rows; /* taps that are a tile's rows; 0: channels are */
    int dots;         /* vectors along positions */
    /* Products of terms, x being A: how many terms; 0: none.  Rows are then lines of 32 positions
     * of a channel, and of 16 channels at each position; grad_output's are parted by phase. */
    int terms;
    int64_t x_lines, dy_lines; /* of a row, all channels of a task */
    int64_t term_blocks;       /* blocks of 32 positions */
    int64_t phase_positions, phase_spans;
    convt3d_tap *phase_tap;
    convt3d_span *phase_span;
    int sums_bias;                   /* the bias gradient is summed up from packed rows */
    int64_t groups, group_blocks;    /* of a task, and how many blocks that makes */
    int64_t rows, vectors, a_blocks; /* A's channels of a tile; tiles to cover a group's */
    int64_t b_length;                /* B's channels, padded to whole vectors */
    int64_t taps;                    /* of the whole kernel */
    int64_t planes;                  /* batch * depth of x: what is cut into chunks */
    int64_t chunks, a_splits;        /* of the positions; of A's channels */
    int64_t least_splits;            /* what A's would be for any number of threads */
    int64_t block[2];                /* x rows packed at a time: planes, height */
    int64_t block_sums;              /* elements of the sums of one of A's blocks, or of one pair of
                                        channels: [tap][rows][b_length], or [tap][lanes] */
    int64_t blocks;                  /* of sums of a group */
    int64_t dy_rows[2];              /* the most rows of a block: planes, height */
    int64_t spans;
    convt3d_tap *tap;   /* on the width axis */
    convt3d_span *span; /* dy row to packed row */
    int asks;           /* a block's rows are asked for while the one before is multiplied */
    size_t sums_bytes;  /* of one chunk: [group][block][block_sums] */
    size_t bias_bytes, thread_bytes;
    size_t at_term_x, at_term_dy, at_stage;                          /* in a thread's scratch */
    size_t at_dy, at_asks, at_segments, at_line, at_tables, at_sums; /* in a thread's scratch */
} convt3d_outer;

enum {
    CONVT3D_OUTER_ROWS = 256, /* x rows of a block: a kernel call takes them all */
    CONVT3D_BIAS_PARTS = 16   /* partial sums of one channel's bias gradient: one a chunk */
};

/* One task: a chunk of planes, some groups, and a range of blocks of their sums. */
typedef struct convt3d_outer_task {
    const convt3d_plan *plan;
    const convt3d_outer *c;
    convt3d_call *call;
    int thread;
    int64_t chunk;
    int64_t group, groups;       /* the first, and how many */
    int64_t block0, block1;      /* of a group's sums */
    int64_t first[2], end[2];    /* x rows that are packed: planes, height */
    int64_t listed[2], *list[2]; /* dy planes (n*depth + d) and heights that are packed, rising */
    int64_t *meets[2];           /* place in these lists of what an x row meets, by tap; -1: none */
    char *x, *dy, *sums;         /* 'sums': of block0 */
    char *term_x, *term_dy;      /* lines */
    float *stage;                /* a row of some channels, to be split */
    int clip;                    /* dots keep off the halo: x has an Inf or NaN */
    convt3d_segment *segment;
    convt3d_asks *asks; /* NULL: none ever */
} convt3d_outer_task;

/* outer_terms.c: whether terms are faster, given the cycles of float32 for a position of x; sets
 * what they need, and says so; packs a block's rows as terms, 0 if the run was stopped or (*fit 0)
 * they don't fit the range; multiplies them. */
void convt3d_outer_choose_terms(const convt3d_plan *plan, convt3d_outer *c, double cycles);
void convt3d_outer_describe_terms(const convt3d_plan *plan, convt3d_text *text);
int convt3d_outer_use_terms(const convt3d_outer *c);
int convt3d_outer_pack_terms(convt3d_outer_task *t, int *fit);
int convt3d_outer_run_terms(const convt3d_outer_task *t);

/* Lists what the block's x rows meet; where the row of a plane, counted over all samples, is. */
void convt3d_outer_list(convt3d_outer_task *t);
const char *convt3d_outer_row_at(const convt3d_outer_task *t, const convt3d_view *v,
                                 const convt3d_side *side, int64_t plane, int64_t depth, int64_t h);

/* outer_rows.c: packs the rows of a block, and works out what meets what; 0 if the
 * run was stopped.  A row of a side has this many elements. */
int convt3d_outer_pack(convt3d_outer_task *t);
/* The dy rows of the block after this one, if it is first..end: lists those that this one
 * has not packed, to be asked for. */
void convt3d_outer_ask(const convt3d_outer_task *t, const int64_t first[2], const int64_t end[2]);

int64_t convt3d_outer_row(const convt3d_outer_task *t, const convt3d_side *side);

/* outer_sums.c: the bias gradient from 'parts' sums of each channel; adds the chunks of one block
 * of sums up and writes its weights; the parallel loops over these, and over the parts of the bias
 * gradient. */
void convt3d_outer_write(const convt3d_call *call, int thread, int64_t group, int64_t block,
                         char *sums);
char *convt3d_outer_sums(const convt3d_call *call, int64_t chunk);
char *convt3d_outer_scratch(const convt3d_call *call, int thread);
void convt3d_outer_reduce(convt3d_call *call, double until);
void convt3d_outer_bias(convt3d_call *call);
void convt3d_outer_store_bias(convt3d_call *call, const double *part, int64_t parts);

/* outer_plan.c; the rest of the algorithm is in outer.c. */
convt3d_status convt3d_outer_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                     convt3d_error *err);
void convt3d_outer_describe(const convt3d_plan *plan, convt3d_text *text);

#endif
