/* tiles: which of an ISA's tiles cover a block of sums at the least cost.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TILES_H
#define CONVT3D_TILES_H

#include "kernel.h"

/* A tile's largest size, and what covering the whole block with such tiles takes:
 * cycles for each step of the reduction, on a CPU that starts one multiply-add and
 * one load a cycle. */
typedef struct convt3d_tiles {
    int64_t rows, vectors;
    double cycles;
} convt3d_tiles;

/* 'split': a vector is read across two cache lines as a rule.  'only': the number of
 * vectors, 0: any.  Fewest cycles, then the fewest tiles. */
convt3d_tiles convt3d_tiles_choose(const convt3d_type_kernels *type, int64_t rows, int64_t vectors,
                                   int split, int64_t only);

/* Part 'index' of 'count' equal parts of 'total': where it starts. */
static inline int64_t convt3d_part_start(int64_t total, int64_t count, int64_t index) {
    return total / count * index + (index < total % count ? index : total % count);
}

/* The width of a row of packed weights for m channels: whole vectors, with the
 * least to fill up and the fewest panels; m itself where that is no vector. */
int64_t convt3d_panel_width(const convt3d_type_kernels *type, int64_t m);

#endif
