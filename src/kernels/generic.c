/* generic: the kernels that any CPU runs.
 * SPDX-License-Identifier: MIT */
#include "vec_generic.h"

#define ISA           generic
#define ISA_SUPPORTED 1

/* 4 x 2 vectors: 8 sums, 2 of b, 1 of a and a product fit 16 registers. */
#define TILE_ROWS    4
#define TILE_VECTORS 2
#define TILES(do)                                                                                  \
    do (1, 1) do(2, 1) do(3, 1) do(4, 1) do(1, 2) do(2, 2) do(3, 2) do(4, 2)

#include "isa.inc"
