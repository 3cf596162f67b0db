/* outer: the engine's backward_weight: sums of outer products over positions.
 *
 *     dw[ci, co, k] = sum over positions i of x[ci, i] * dy[co, i's output through k]
 *
 * For one tap that is a matrix product whose reduction runs along positions, so
 * both tensors are packed across: side A (broadcast) as [row][block][position]
 * [rows of a tile], side B (vectors) as [row][position][channels].  Which of x
 * and dy is A is chosen by how well their channels fill tiles.
 *
 * The positions are cut into chunks whose number depends on the layer only, and
 * the chunks' sums are added in their order: the bytes don't depend on threads.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_OUTER_H
#define CONVT3D_OUTER_H

#include "plan.h"
#include "row.h"

/* One of the two tensors. */
typedef struct convt3d_side {
    int64_t channels;     /* of a group */
    int64_t positions;    /* of a packed row */
    int64_t list_rows[2]; /* the most rows of a block: depth, height */
} convt3d_side;

typedef struct convt3d_outer {
    convt3d_side x, dy;
    int x_is_a;
    int64_t rows, vectors, a_blocks; /* of a tile; tiles to cover A's channels */
    int64_t b_length;                /* B's channels, padded to whole vectors */
    int64_t taps;                    /* of the whole kernel */
    int64_t planes;                  /* batch * depth of x: what is cut into chunks */
    int64_t chunks, a_splits;
    int64_t block[2]; /* x rows packed at a time: depth, height */
    int64_t spans;
    convt3d_tap *tap;   /* on the width axis, last tap first */
    convt3d_span *span; /* dy row to packed row */
    size_t sums_bytes;  /* of one chunk: [group][block][tap][rows][b_length] */
    size_t bias_bytes, thread_bytes;
    size_t at_dy, at_segments, at_line, at_list[2]; /* in a thread's scratch */
} convt3d_outer;

enum {
    CONVT3D_OUTER_SEGMENTS = 256, /* rows that one kernel call takes */
    CONVT3D_BIAS_PARTS = 8        /* partial sums of one channel's bias gradient */
};

/* outer_plan.c; the rest of the algorithm is in outer.c. */
convt3d_status convt3d_outer_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                     convt3d_error *err);
void convt3d_outer_describe(const convt3d_plan *plan, convt3d_text *text);

#endif
