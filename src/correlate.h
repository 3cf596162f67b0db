/* correlate: the engine's forward and backward_input, as one.
 *
 * Both are dense correlations: every result row is a sum, over taps and
 * channels, of a weight times a source row moved by a few elements.
 *
 *                    results              sources
 *     forward        output rows          input rows
 *     backward_input grad_input rows      grad_output rows, padded, by phase
 *
 * A task packs the source rows that a block of result rows needs (its slab:
 * [row][channel][positions]), then runs tiles over them.  Stride lives in the
 * lanes: a lane is every stride-th position of a result row, those that share
 * their taps; backward_input has one lane, and the phases in its slab rows.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_CORRELATE_H
#define CONVT3D_CORRELATE_H

#include "plan.h"
#include "row.h"

/* Positions [q0, q1) of a lane, on which the taps [tap0, tap1) are at work. */
typedef struct convt3d_piece {
    int64_t q0, q1, tap0, tap1;
} convt3d_piece;

typedef struct convt3d_lane {
    int64_t phase, q0, q1; /* result position u = q*stride + phase */
    int64_t tap0, tap1;
    int64_t piece0, piece1; /* the pieces without any halo */
} convt3d_lane;

typedef struct convt3d_correlate {
    int64_t m, k;                   /* channels of a group: results, sources */
    int64_t rows, m_blocks;         /* of a tile; tiles to cover m */
    int64_t taps;                   /* of the whole kernel */
    int64_t results[2], sources[2]; /* rows there are: depth, height */
    int64_t block[2];               /* result rows of a task, and how many tasks that makes */
    int64_t blocks[2];
    int64_t m_splits;     /* tasks that share a slab's rows, by result channels */
    int64_t slab_rows[2]; /* the most source rows of a task */
    int64_t row_length;   /* of a slab row, one channel */
    int64_t lane_length;  /* room for the positions of one lane */
    int clip;             /* work on pieces always: less to multiply */
    int64_t lanes;
    int64_t spans;
    convt3d_lane *lane;
    convt3d_tap *tap;
    convt3d_piece *piece;
    convt3d_span *span;  /* source row to slab row, in order of 'to' */
    size_t thread_bytes; /* scratch of one thread, and where its parts start */
    size_t at_tile, at_full, at_zero, at_segments, at_list[2];
} convt3d_correlate;

enum {
    CONVT3D_SEGMENTS = 256, /* taps that one kernel call takes */
    CONVT3D_TEETH = 8,      /* the most lanes that are stored tooth by tooth */
    CONVT3D_ZEROS_LENGTH = 64
};

/* correlate_plan.c; the rest of the algorithm is in correlate.c. */
convt3d_status convt3d_correlate_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                         convt3d_error *err);
void convt3d_correlate_describe(const convt3d_plan *plan, convt3d_text *text);

#endif
