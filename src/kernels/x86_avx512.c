/* x86_avx512: the kernels for CPUs with AVX-512 F, VL, DQ and BW (Skylake-X,
 * Zen 4, and later).
 * SPDX-License-Identifier: MIT */
#if defined(__x86_64__)
#include "vec_avx512.h"

#define ISA x86_avx512
#define ISA_SUPPORTED                                                                              \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&                    \
     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))

/* 12 x 2 vectors: 24 sums and 2 of b, with a from memory, fit 32 registers. */
#define TILE_ROWS    12
#define TILE_VECTORS 2
#define TILES(do)                                                                                  \
    do                                                                                             \
    (1, 1) do(2, 1) do(3, 1) do(4, 1) do(5, 1) do(6, 1) do(7, 1) do(8, 1) do(9, 1) do(10, 1) do(   \
        11,                                                                                        \
        1) do(12,                                                                                  \
              1) do(1, 2) do(2, 2) do(3, 2) do(4,                                                  \
                                               2) do(5,                                            \
                                                     2) do(6,                                      \
                                                           2) do(7,                                \
                                                                 2) do(8,                          \
                                                                       2) do(9,                    \
                                                                             2) do(10,             \
                                                                                   2) do(11,       \
                                                                                         2) do(12, \
                                                                                               2)

#include "isa.inc"
#else
typedef int convt3d_no_x86_avx512;
#endif
