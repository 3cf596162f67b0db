/* kernel: the contract between the drivers and the kernels of one ISA.
 *
 * Kernels do arithmetic on one tile, or move one row, and know nothing of
 * strides, padding, groups or threads.  All pointers are to elements of the
 * kernel set's type (float or double), but what movers take from the caller or
 * bring there is of the dtype of their set; aligned to an element only.  Lengths
 * and steps count elements.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_KERNEL_H
#define CONVT3D_KERNEL_H

#include <stddef.h>
#include <stdint.h>

/* A run of the reduction: k steps, where step j reads a row's value at
 * a + j*a_step and a vector row at b + j*b_step. */
typedef struct convt3d_segment {
    int64_t a, b; /* offsets from the bases of the call */
    int64_t k;
} convt3d_segment;

/* One tile: as many rows and columns as the kernel's size,
 *
 *     c[r*c_row + x] (+)= sum over segments s and steps j < s.k of
 *                         a[s.a + j*a_step + r*a_row] * b[s.b + j*b_step + x]
 *
 * added in the order of segments and steps, one product at a time: the result
 * doesn't depend on which tile computes it, nor on which of the two tensors is a.
 * 'accumulate' 0 starts from zero. */
typedef struct convt3d_tile {
    const void *a, *b;
    void *c;
    int64_t a_step, a_row, b_step, c_row;
    const convt3d_segment *segments;
    int64_t count;
    int accumulate;
    /* Memory that somebody will read soon: rows of 'ask_bytes', some asked for with each
     * segment, ask_each*count rows or 'asks' if these are fewer. */
    const char *const *ask;
    int64_t asks, ask_each, ask_bytes;
} convt3d_tile;

typedef void convt3d_gemm(const convt3d_tile *tile);

#define CONVT3D_DOTS 8 /* rows of a convt3d_dot at most */

/* Dot products along rows, each in as many parts as a vector has elements:
 *
 *     sums[r*sums_row + l] += sum over segments s and j < length, j = l modulo lanes, of
 *                             x[s.a + j] * y[s.b + r*y_row + j] */
typedef struct convt3d_dot {
    const void *x, *y;
    void *sums;
    int64_t y_row, sums_row, length;
    const convt3d_segment *segments;
    int64_t count;
} convt3d_dot;

/* A block of results on its way to the caller: channel c, position p, sample s
 *
 *     to[c*step[0] + p*step[1] + s*step[2]] = (add: itself +)
 *         from[c*pitch + p*count[2] + s] + bias[c*bias_step]
 *
 * for all c < count[0], p < count[1], s < count[2]. */
typedef struct convt3d_block {
    const void *from;
    int64_t pitch;
    void *to;
    int64_t step[3], count[3];
    const void *bias;
    int64_t bias_step;
    int add;
} convt3d_block;

#define CONVT3D_MAX_ROWS    16 /* of a tile, over all ISAs */
#define CONVT3D_MAX_VECTORS 8
#define CONVT3D_TEETH       8 /* the most lanes of a convt3d_lay */

typedef enum convt3d_store {
    CONVT3D_STORE_PLAIN,
    CONVT3D_STORE_ADD,
    CONVT3D_STORE_PAST
} convt3d_store;

/* Rows on their way from the caller, in a grid:
 *
 *     to[g*to_step[0] + r*to_step[1] + j] =
 *         from[g*from_step[0] + r*from_step[1] + j*from_step[2]]
 *
 * for all g < count[0], r < count[1], j < count[2].  With 'odd', from_step[2] is 2, and
 * what lies between goes there in the same go, 'odds' elements of each row. */
typedef struct convt3d_rows {
    void *to, *odd;
    int64_t to_step[2];
    const void *from;
    int64_t from_step[3], count[3], odds;
} convt3d_rows;

/* The beginning of a vector's place in memory that the next row may complete. */
typedef struct convt3d_carry {
    double values[8]; /* of a vector of numbers, whatever their type */
    void *line;
    int64_t count; /* elements; 0: none */
} convt3d_carry;

/* Rows on their way to the caller, each laid tooth by tooth from 'lanes' rows:
 *
 *     to[r*to_row + j*step] = (ADD: itself +)
 *         from[j % lanes][r*from_row[j % lanes] + j / lanes] + bias[r*bias_step]
 *
 * for all r < rows, j < count.  PAST: past the caches where step is 1 and lanes 1 or 2,
 * for results that don't fit them; drain() before anybody else reads them.  What such a row
 * leaves of its last line, 'carry' keeps, one for each row, until a call whose row begins
 * there, or until drain().  Reads less than a vector beyond the ends of the rows in
 * 'from'. */
typedef struct convt3d_lay {
    void *to;
    int64_t to_row, step;
    const void *from[CONVT3D_TEETH];
    int64_t from_row[CONVT3D_TEETH];
    int lanes;
    int64_t rows, count;
    const void *bias;
    int64_t bias_step;
    convt3d_store how;
    convt3d_carry *carry; /* NULL: lines are written in parts */
} convt3d_lay;

/* What comes from the caller's memory, and goes there: between elements of one dtype and
 * the numbers, float or double, that they are while they are computed with. */
typedef struct convt3d_movers {
    size_t element; /* bytes, in the caller's memory */

    void (*gather)(const convt3d_rows *rows);

    /* to[j*ld + r] = from[r*row_step + j*step] for r < rows, 0 for rows <= r <
     * padded: a block of the caller's rows laid across. */
    void (*transpose)(void *to, int64_t ld, const void *from, int64_t row_step, int64_t step,
                      int64_t rows, int64_t padded, int64_t count);

    void (*store)(const convt3d_lay *lay);
    void (*drain)(convt3d_carry *carry, int64_t count);

    /* A block, whichever axis is the closest in the caller's memory. */
    void (*spread)(const convt3d_block *block);

    /* The sum of from[r*row_step + j*step] over r < rows, j < count, in an order that depends
     * on these two only. */
    double (*sum)(const void *from, int64_t row_step, int64_t rows, int64_t step, int64_t count);
} convt3d_movers;

typedef struct convt3d_type_kernels {
    int lanes; /* elements of a vector */
    int panel; /* the most vectors of a row of packed weights */
    /* The tiles there are, by [rows - 1][vectors - 1]: narrower and lower ones of
     * each, too.  gemm needs a_row 1. */
    convt3d_gemm *gemm[CONVT3D_MAX_ROWS][CONVT3D_MAX_VECTORS];
    convt3d_gemm *gemm_apart[CONVT3D_MAX_ROWS][CONVT3D_MAX_VECTORS];
    void (*dot[CONVT3D_DOTS])(const convt3d_dot *work); /* [rows - 1] */

    convt3d_movers own; /* from numbers to numbers */

    /* to[j*step] += from[j] */
    void (*add)(void *to, int64_t step, const void *from, int64_t count);

    /* 1 if one of from[0..count) is Inf or NaN. */
    int (*nonfinite)(const void *from, int64_t count);

    /* row[j] = f(row[j] + bias), f a convt3d_activation with this slope: the same
     * bits wherever in the row a value is. */
    void (*activate)(void *row, int64_t count, double bias, int activation, double slope);
} convt3d_type_kernels;

/* ---- Terms -------------------------------------------------------------------------
 *
 * CPUs that multiply bfloat16 much faster than float32 take a float32 number as a sum of
 * three terms of bfloat16, x = x1 + x2 + x3, each what the ones before it lack, rounded.
 * Of the nine products of two numbers' terms the six largest are all that counts. */

#define CONVT3D_TERMS        3
#define CONVT3D_TERM_LINE    64 /* bytes: the 32 channels of a block, at one position */
#define CONVT3D_TERM_BLOCK   32 /* channels, padded with zeros */
#define CONVT3D_TERM_TILE    16
#define CONVT3D_TERM_ROWS    32 /* positions of a convt3d_term_tile at most, */
#define CONVT3D_TERM_COLUMNS 32 /* and result channels */

/* The largest and the smallest magnitude of some floats that aren't 0, as bits: these are
 * ordered as the numbers, then Inf, then NaN.  None: 0 and UINT32_MAX. */
typedef struct convt3d_range {
    uint32_t most, least;
} convt3d_range;

/* Channels of one row to terms, those of a position side by side, in the order 0, 16, 1, 17
 * and so on:
 *
 *     line (p, t) of 'to', element e = term t of from[c*pitch + p], c = e/2 + e%2*16
 *
 * or 0 where c >= channels, for all p < positions.  Widens 'range' by all of them. */
typedef struct convt3d_term_rows {
    const float *from;
    int64_t pitch, channels, positions; /* channels <= CONVT3D_TERM_BLOCK */
    void *to;                           /* lines: to + p*LINE + t*to_term bytes */
    int64_t to_term;
    int terms;
    convt3d_range *range;
} convt3d_term_rows;

/* Rows to terms, each channel's positions side by side, 32 a line in the order 0, 16, 1, 17 and so
 * on, for products along positions:
 *
 *     line (b, t, c) of 'to', element e = term t of from[c*pitch + p], p = 32*b + e/2 + e%2*16
 *
 * or 0 where p >= positions or c >= channels, for all c < CONVT3D_TERM_BLOCK and b < positions/32,
 * rounded up; or, 'turned', 16 channels of every position and of the 16th after it:
 *
 *     line (p, t), element e = term t of from[e/2*pitch + p + e%2*16]
 *
 * for all p < positions + CONVT3D_TERM_BLOCK. */
typedef struct convt3d_term_lines {
    const float *from;
    int64_t pitch, channels, positions;
    void *to; /* lines; to + t*to_term + b*to_block or + p*LINE bytes */
    int64_t to_term, to_block;
    int terms, turned;
    convt3d_range *range;
} convt3d_term_lines;

/* A block of weights to terms, two source channels side by side, as its tiles are read:
 * of term t and each half of the 32 result channels 16 lines, in this order; of result
 * channel m of a half, line j holds source channels j and j + 16 at elements 2*m, 2*m + 1:
 * from[k*pitch + m] for k < k_count, m < m_count, 0 beyond. */
typedef struct convt3d_term_weights {
    const float *from;
    int64_t pitch, k_count, m_count;
    void *to;
    int terms;
    convt3d_range *range;
} convt3d_term_weights;

typedef enum convt3d_products {
    CONVT3D_ALL_PRODUCTS,
    CONVT3D_SMALL_PRODUCTS, /* all but those of two first terms */
    CONVT3D_LARGE_PRODUCTS
} convt3d_products;

/* One tile: positions p < rows, result channels m < columns
 *
 *     c[p*c_row + m] (+)= sum over segments and blocks, of the products of terms
 *
 * All small products are added first, then the large ones to their sum.  A segment's a and
 * b count lines from the bases, its k channels.  Computes and writes whole tiles of 16 by 16. */
typedef struct convt3d_term_tile {
    const void *a, *b; /* positions, weights */
    float *c;
    int64_t a_term, a_block;         /* bytes from term to term and from block to block */
    int64_t b_term, b_block, b_half; /* the same, and from the first 16 columns to the others */
    int64_t c_row;
    const convt3d_segment *segments;
    int64_t count, rows, columns;
    int accumulate;
    convt3d_products which;
} convt3d_term_tile;

typedef struct convt3d_term_kernels {
    /* Around a thread's calls of the products: what there is of the CPU's state is kept
     * in 'state', and put back. */
    void (*begin)(char state[CONVT3D_TERM_LINE]);
    void (*end)(const char state[CONVT3D_TERM_LINE]);
    void (*product[CONVT3D_TERMS])(const convt3d_term_tile *tile); /* [terms - 1] */
    void (*split_rows)(const convt3d_term_rows *rows);
    void (*split_weights)(const convt3d_term_weights *weights);
    void (*split_lines)(const convt3d_term_lines *lines);
} convt3d_term_kernels;

typedef struct convt3d_kernels {
    const char *name;
    int (*supported)(void);
    const convt3d_type_kernels *type[2]; /* float32, float64 */
    const convt3d_movers *movers[4];     /* by dtype: those two, bfloat16, float16 */
    const convt3d_term_kernels *terms;   /* NULL: float32 as it is */
} convt3d_kernels;

#define CONVT3D_ISA(name) extern const convt3d_kernels convt3d_kernels__##name;
#include "kernels/list.inc"
#undef CONVT3D_ISA

#endif
