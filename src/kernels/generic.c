/* generic: the kernels that any CPU runs.
 * SPDX-License-Identifier: MIT */
#include "vec_generic.h"

#define ISA           generic
#define ISA_SUPPORTED 1

#define DRAIN() ((void)0) /* plain stores need none */

/* 8 sums, up to 4 vectors of b, 1 of a and a product fit 16 registers. */
#define PANEL     2
#define TILES(do) ROWS_6(do, 1) ROWS_4(do, 2) ROWS_2(do, 3) ROWS_2(do, 4)

#include "isa.inc"
