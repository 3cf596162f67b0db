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
 *
 * A tile's vectors lie along positions and its rows are result channels; where
 * rows are short it is turned: vectors lie along channels, its rows are positions.
 * Both read the same slab and the same packed weights, and add in the same order.
 *
 * Short rows of one stride phase that take the same taps are run as one, where the
 * slab holds their sources one behind the other: [depth][channel][height][positions].
 *
 * Forward with few channels merges the stride's phases into them where every phase
 * has as many taps: one position of all phases is then a stride-1 correlation with
 * stride^3 times as many channels, which share what they read.
 *
 * Where samples lie closer together in the caller's memory than positions do, or
 * rows are very short, a task takes a run of samples side by side: each position is
 * then 'run' elements long, in slab and tile alike, and nothing else changes.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_CORRELATE_H
#define CONVT3D_CORRELATE_H

#include "asks.h"
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

/* What the taps of one stride phase read of a slab row: elements low..low + reach
 * at the lanes' first position, and as many more for each further one. */
typedef struct convt3d_part {
    int64_t low, reach, before; /* 'before': the reaches of all parts before it */
} convt3d_part;

/* How the work is cut into tasks, and those into tiles. */
typedef struct convt3d_cut {
    int64_t run, runs;            /* samples side by side, and how many runs that makes */
    int64_t strip, strips;        /* positions of a lane, and how many strips that makes */
    int64_t groups, group_blocks; /* groups of a task, and how many blocks that makes */
    int64_t block[2], blocks[2];  /* result rows of a task, and how many blocks that makes */
    int64_t unit_splits;          /* tasks that share a slab's rows, by units */
    int64_t slab_rows[2];         /* the most source rows of a task */
    int64_t ring;                 /* those along the height that the slab holds at once */
    int64_t row_length;           /* positions of a slab row */
    int64_t flat;                 /* the most result rows that are run as one long one, */
    int64_t flat_pitch;           /* each so many positions behind the one before it; */
    int64_t deep;                 /* of terms, those of so many depths */
    /* Long rows of terms hold one stride phase's source rows along the height after another,
     * of each all depths: phases, and the most rows of one at one depth. */
    int64_t row_phases, phase_rows;
    int64_t row_pitch, tile_pitch; /* elements from channel to channel in slab and tile */
    int64_t term_pitch;            /* lines of a row's, or of the long row's, positions */
    int64_t turned_size;           /* elements of a unit's turned sums */
    /* A unit: the channels of one group, within one panel, that one column of tiles
     * computes. */
    int by_phase;                   /* rows of one stride phase one after another */
    int turned;                     /* vectors lie along channels */
    int rolling;                    /* source rows come, and go, with each height */
    int by_chunk;                   /* units take turns, segment by segment */
    int64_t rows, vectors;          /* of the largest tile */
    int64_t width, in_panel, units; /* a unit's channels; units of a panel, of a group */
    int64_t share;                  /* units that a row's program is made for at once */
    int64_t chunk;                  /* source channels of a segment at most */
    int64_t together[2];            /* units whose rows are computed and stored at once: as a
                                       rule, and where channels lie closest in memory */
} convt3d_cut;

typedef struct convt3d_correlate {
    /* The layer's axes; with merged phases, those of the layer that has stride 1, a
     * result for each position q, and a result channel for each phase and channel. */
    convt3d_axis axis[3];
    int64_t merged[3];     /* phases of each axis; all 1 where none are merged */
    int64_t last[3];       /* how many of them, from the first on, the last tap has */
    int64_t m, k;          /* channels of a group: results, sources */
    int64_t panel, panels; /* result channels of a row of packed weights */
    int64_t k_block;       /* source channels that all taps take before the next ones */
    int64_t taps;          /* of the whole kernel */
    /* Terms that packed weights hold as well, and that this plan multiplies; 0: none. */
    int term_count, terms;
    int64_t term_blocks, term_units; /* blocks of source channels; units of a panel */
    size_t at_term_weights;          /* bytes from the start of the packed weights */
    size_t at_stage, stage_bytes;    /* the same: numbers that become terms; a thread's */
    double cycles;                   /* a result row's, by the models of cut[0] */
    int64_t results[2], sources[2];  /* rows there are: depth, height */
    convt3d_cut cut[2];              /* as a rule; where samples lie closest in memory */
    int64_t row_length;              /* positions of a slab row, one channel */
    int64_t lane_length;             /* the most positions of one lane */
    int clip;                        /* work on pieces always: less to multiply */
    int stream;                      /* results that don't fit the caches */
    int64_t lanes;
    int64_t spans;
    convt3d_lane *lane;
    convt3d_tap *tap;
    convt3d_piece *piece;
    convt3d_span *span; /* source row to slab row, in order of 'to' */
    convt3d_part *part;
    int64_t *tap_part, *span_part; /* which part each belongs to */
    int64_t parts;
    int64_t first_position, positions; /* the lowest q0 of a lane; from there to the highest q1 */
    size_t zeros_bytes;                /* of a tile row of zeros */
    size_t thread_bytes;               /* scratch of one thread, and where its parts start */
    size_t at_tile, at_turned, at_full, at_zero, at_carry, at_asks, at_terms, at_ranges, at_program,
        at_order[2], at_term_order, at_list[2];
} convt3d_correlate;

enum {
    CONVT3D_SEGMENTS = 512, /* of a task's program, and its steps, and its pairs */
    CONVT3D_STEPS = 64,
    CONVT3D_PAIRS = 64,
    CONVT3D_ZEROS_LENGTH = 64,
    CONVT3D_SHORT_ROW = 8,          /* positions: samples of a batch go side by side, */
    CONVT3D_SAMPLES = 8,            /* if there are that many */
    CONVT3D_RUN_BYTES = 160,        /* of the samples side by side: at most CONVT3D_ZEROS_LENGTH */
    CONVT3D_CHANNEL_BYTES = 256,    /* of the channels that are stored at once */
    CONVT3D_STREAM_BYTES = 16 << 20 /* results larger than this go past the caches */
};

/* Depth and height of one term of a result row: a row of the kernel, and one of the
 * slab. */
typedef struct convt3d_pair {
    int64_t kernel_row, slab; /* 'slab': its first element */
    int few;                  /* as of a step */
} convt3d_pair;

/* Positions [q0, q1) of a lane, and the segments that sum up to them. */
typedef struct convt3d_step {
    int few; /* bit a: taps that only the first phases of axis a have */
    int64_t lane, q0, q1, segment, count;
    int accumulate;
} convt3d_step;

/* What a result row takes, for any unit: made once, run for several units. */
typedef struct convt3d_program {
    convt3d_segment segment[CONVT3D_SEGMENTS];
    convt3d_step step[CONVT3D_STEPS];
    convt3d_pair pair[CONVT3D_PAIRS];
    int64_t segments, steps, pairs;
    int apart; /* each step starts a program */
} convt3d_program;

/* One task: a block of result rows, or of strips of them, of a run of samples, and a
 * range of units of one or several groups. */
typedef struct convt3d_task {
    const convt3d_plan *plan;
    const convt3d_correlate *c;
    const convt3d_cut *cut;
    const convt3d_type_kernels *type;
    const convt3d_movers *movers;
    convt3d_call *call;
    const convt3d_view *from, *to; /* sources, results */
    int thread, by_pieces;
    int stream;           /* results go past the caches */
    convt3d_carry *carry; /* for rows that share cache lines with the next; else NULL */
    int64_t carries;
    int64_t sample, run, group, groups;
    int64_t first[2], end[2]; /* result rows: depth, height */
    int64_t q0, q1;           /* the strip's positions, of every lane */
    int64_t slab_step[2];     /* elements from depth to depth and row to row of the slab */
    int64_t program_step[2];  /* the same of the slab that programs read: lines, of terms */
    int terms;                /* programs read terms */
    int staged;               /* the other slab holds a patch at a time, just to be split */
    int row_by_row;           /* rows are not run as one */
    char *term_slab;
    convt3d_range *range, *seen;      /* of each slab row, and of all that was gathered so far */
    const struct convt3d_task *plain; /* for rows that terms can't be multiplied for */
    int64_t unit0, unit1;             /* counted from the first group's first unit */
    int64_t together;                 /* units that are computed and stored at once */
    int teeth;                        /* phases of a result row's positions in order; 0: too many */
    int64_t tooth[CONVT3D_TEETH];
    int64_t lane_size; /* bytes of one lane's rows of these units in the tile */
    /* 'zero': a row of zeros; some of -0 in a plan with an activation. */
    char *slab, *tile, *turned, *full, *zero;
    convt3d_program *program;
    convt3d_asks *asks;          /* NULL: none ever */
    int64_t *list[2], listed[2]; /* source rows that are in the slab, rising */
    int64_t *order[2];           /* where on each axis they are there */
    int64_t *term_order;         /* the same along the height in the slab of terms */
} convt3d_task;

/* A block's weights of one unit. */
static inline int64_t convt3d_term_block_bytes(const convt3d_correlate *c) {
    return (int64_t)c->term_count * CONVT3D_TERM_BLOCK * CONVT3D_TERM_LINE;
}

/* A unit of a task: channels [m0, m1) of a group, that are those from 'column' on of a
 * panel. */
typedef struct convt3d_unit {
    int64_t group, m0, m1, panel, column;
} convt3d_unit;

/* Blocks of a segment at most: as many as half of a core's innermost cache holds weights of. */
static inline int64_t convt3d_term_segment(const convt3d_correlate *c) {
    return 24 * 1024 / convt3d_term_block_bytes(c);
}

/* Positions from depth to depth of a long row. */
static inline int64_t convt3d_depth_pitch(const convt3d_cut *cut) {
    return cut->phase_rows * cut->flat_pitch;
}

/* How many phases are merged into the channels of a group. */
static inline int64_t convt3d_phases(const convt3d_correlate *c) {
    return c->merged[0] * c->merged[1] * c->merged[2];
}

/* Taps that not all of an axis's phases have: 1 if there are any, and 1 if k is one. */
static inline int convt3d_is_uneven(const convt3d_correlate *c) {
    return c->last[0] < c->merged[0] || c->last[1] < c->merged[1] || c->last[2] < c->merged[2];
}

static inline int convt3d_is_few(const convt3d_correlate *c, int a, int64_t k) {
    return k == c->axis[a].kernel - 1 && c->last[a] < c->merged[a];
}

/* Whether result rows are put together whole before their borders are folded. */
static inline int convt3d_folds_rows(const convt3d_plan *plan) {
    return plan->direction == CONVT3D_FORWARD && plan->geometry.axis[2].mode != CONVT3D_ZEROS;
}

static inline int convt3d_is_merged(const convt3d_correlate *c) {
    return convt3d_phases(c) > 1;
}

/* correlate_program.c: lists the source rows of a task, and where the slab holds them. */
void convt3d_correlate_list(convt3d_task *t);

/* How many depths from d on, 'apart' from each other, are run as one. */
int64_t convt3d_correlate_depths(const convt3d_task *t, int64_t d, int64_t apart);

/* Result row (d, h) for some units, and those after it, 'apart' from each other, that are
 * run as one with it, of so many depths: multiplies, then stores.  Returns how many rows of
 * each depth that were. */
int64_t convt3d_correlate_run_row(const convt3d_task *t, int64_t unit0, int64_t unit1,
                                  const int64_t at[2], const int64_t apart[2], int64_t depths);

/* correlate_multiply.c: a task's unit by its number. */
convt3d_unit convt3d_correlate_unit(const convt3d_task *t, int64_t index);

/* Runs the program for some units; their channels, counted from the
 * first group's first. */
void convt3d_correlate_run(const convt3d_task *t, int64_t unit0, int64_t unit1);
void convt3d_correlate_channels(const convt3d_task *t, int64_t unit0, int64_t unit1, int64_t *m0,
                                int64_t *m1);

/* How many of the listed rows along the height result rows up to h need. */
int64_t convt3d_correlate_needed(const convt3d_task *t, int64_t h);

/* Where the slab holds channel k of the row at place (d, h) of the lists, of a patch that
 * starts with the one at 'first'. */
static inline int64_t convt3d_correlate_slab_at(const convt3d_task *t, int64_t d, int64_t h,
                                                int64_t first, int64_t k) {
    if (t->staged) return (t->cut->flat > 1 ? t->order[1][h] : h - first) * t->slab_step[1];
    return t->order[0][d] * t->slab_step[0] + t->order[1][h] * t->slab_step[1] +
           k * t->cut->row_pitch;
}

/* correlate_gather.c: the caller's rows into the slab, along the height those from one
 * place in the list to another; 0 if the run was stopped. */
int convt3d_correlate_gather(const convt3d_task *t, int64_t from, int64_t end);

/* Lists the same rows to be asked for. */
void convt3d_correlate_ask(const convt3d_task *t, int64_t from, int64_t end);

/* How much nearer to its start the strip's row holds what the whole row holds in
 * this part. */
int64_t convt3d_correlate_shift(const convt3d_task *t, int64_t part);

/* Whether no axis of the tensor has its elements closer together than this one, and
 * whether a task moves channels side by side, not positions, to or from it. */
int convt3d_correlate_closest(const convt3d_view *v, int axis);
int convt3d_correlate_across(const convt3d_task *t, const convt3d_view *v);

/* correlate_terms.c: how products are made, and why; whether packed weights hold terms; the cycles
 * of some result rows as terms, of 'row_tiles' tiles of positions, multiplied 'tap_tiles' times for
 * all taps. */
void convt3d_correlate_describe_terms(const convt3d_plan *plan, convt3d_text *text);
int convt3d_correlate_can_terms(const convt3d_plan *plan, const convt3d_correlate *c);
double convt3d_correlate_term_cycles(const convt3d_correlate *c, double rows, double row_tiles,
                                     double tap_tiles);

/* Whether a call multiplies terms at all; whether all that a task has gathered may be, and
 * the slab's row number (d, order). */
int convt3d_correlate_use_terms(const convt3d_correlate *c, const convt3d_call *call);
int convt3d_correlate_all_fit(const convt3d_task *t);
int convt3d_correlate_row_fits(const convt3d_task *t, int64_t d, int64_t order);

/* How many lines further on a long row of terms holds what a slab row holds in this part. */
int64_t convt3d_correlate_part_shift(const convt3d_task *t, int64_t part);

/* Steps of the terms' slab; channels [k, k + channels) of some rows from place (d, h) of
 * the lists on, from the other slab. */
void convt3d_correlate_term_steps(const convt3d_task *t, int64_t step[2]);
void convt3d_correlate_split(const convt3d_task *t, int64_t d, int64_t h, int64_t rows, int64_t k,
                             int64_t channels);

/* The program, for some units. */
void convt3d_correlate_run_terms(const convt3d_task *t, int64_t unit0, int64_t unit1);

/* Source channels [k0, k1), a block, of a panel of packed weights to terms: 'from' are their
 * numbers, 'step' from tap to tap. */
void convt3d_correlate_pack_terms(const convt3d_plan *plan, convt3d_packed *packed, int64_t panel,
                                  int64_t k0, int64_t k1, const float *from, int64_t step);

/* correlate_store.c: works out t->tooth; channels m0 to m1, counted from the first group's
 * first, of result row (d, h), which is so many positions behind the first of the rows that
 * were run as one, from the tile to the caller. */
void convt3d_correlate_set_teeth(convt3d_task *t);
void convt3d_correlate_store(const convt3d_task *t, int64_t m0, int64_t m1, int64_t d, int64_t h,
                             int64_t position);

/* The carries of a task: one for each of its channels, or, where rows come height after
 * height, for each channel of each depth. */
int64_t convt3d_correlate_carries(const convt3d_correlate *c, const convt3d_cut *cut);

/* correlate_pack.c: the channel of the layer that a result channel, counted from a group's
 * first, belongs to, and its phase on each axis; packing, as the algorithm's. */
int64_t convt3d_correlate_channel(const convt3d_correlate *c, int64_t m, int64_t phase[3]);
int64_t convt3d_correlate_pack_tasks(const convt3d_plan *plan);
void convt3d_correlate_pack(const convt3d_plan *plan, const convt3d_view *w, convt3d_packed *packed,
                            int64_t index, int thread);

/* Runs that pack terms have no use for numbers, but for rows that terms don't serve: packs these
 * as well, if nobody has.  From tap to tap of those that become terms. */
void convt3d_correlate_need_numbers(const convt3d_call *call);
int64_t convt3d_correlate_stage_step(const convt3d_correlate *c);

/* correlate_cut.c: the two cuts. */
void convt3d_correlate_choose_cuts(const convt3d_plan *plan, convt3d_correlate *c);

/* correlate_tiles.c: bytes of the packed weights of 'width' result channels, and of those of one
 * stride phase; tiles, and how many rows are run as one; then how many depths, once the block is
 * known; the products and the cycles of a result row. */
double convt3d_correlate_weight_bytes(const convt3d_plan *plan, const convt3d_correlate *c,
                                      int64_t width);
double convt3d_correlate_phase_bytes(const convt3d_plan *plan, const convt3d_correlate *c,
                                     int64_t width);
void convt3d_correlate_choose_flat(const convt3d_plan *plan, const convt3d_correlate *c,
                                   convt3d_cut *cut);
void convt3d_correlate_limit_deep(const convt3d_plan *plan, const convt3d_correlate *c,
                                  convt3d_cut *cut);
double convt3d_correlate_row_products(const convt3d_plan *plan, const convt3d_correlate *c);
double convt3d_correlate_row_cycles(const convt3d_plan *plan, const convt3d_correlate *c,
                                    const convt3d_cut *cut);

/* correlate_scratch.c: sets the distances of rows, and the scratch; 0 if they are too large for
 * any memory. */
int convt3d_correlate_set_pitches(const convt3d_plan *plan, const convt3d_correlate *c,
                                  convt3d_cut *cut);
int convt3d_correlate_size_scratch(const convt3d_plan *plan, convt3d_correlate *c);

/* correlate_plan.c; the rest of the algorithm is in correlate.c. */
convt3d_status convt3d_correlate_prepare(convt3d_plan *plan, int *accepted, const char **why,
                                         convt3d_error *err);
void convt3d_correlate_describe(const convt3d_plan *plan, convt3d_text *text);

#endif
