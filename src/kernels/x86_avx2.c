/* x86_avx2: the kernels for CPUs with AVX2 and FMA (Haswell, Zen, and later).
 * SPDX-License-Identifier: MIT */
#if defined(__x86_64__)
#include "vec_avx2.h"

#define ISA           x86_avx2
#define ISA_SUPPORTED (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))

/* 6 x 2 vectors: 12 sums, 2 of b and 1 of a fit 16 registers. */
#define TILE_ROWS    6
#define TILE_VECTORS 2
#define TILES(do)                                                                                  \
    do                                                                                             \
    (1, 1) do(2, 1) do(3, 1) do(4, 1) do(5, 1) do(6, 1) do(1, 2) do(2, 2) do(3, 2) do(4, 2) do(    \
        5, 2) do(6, 2)

#include "isa.inc"
#else
typedef int convt3d_no_x86_avx2;
#endif
