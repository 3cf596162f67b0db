/* x86_avx512: the kernels for CPUs with AVX-512 F, VL, DQ and BW (Skylake-X,
 * Zen 4, and later).
 * SPDX-License-Identifier: MIT */
#if defined(__x86_64__)
#include "vec_avx512.h"

#define ISA x86_avx512
#define ISA_SUPPORTED                                                                              \
    (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&                    \
     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))

#define DRAIN _mm_sfence

/* 24 sums and a few vectors of b, with a from memory, fit 32 registers; wide tiles
 * are for few rows. */
#define PANEL 4
#define TILES(do)                                                                                  \
    ROWS_12(do, 1)                                                                                 \
    ROWS_12(do, 2)                                                                                 \
    ROWS_9(do, 3) ROWS_6(do, 4) ROWS_4(do, 5) ROWS_4(do, 6) ROWS_2(do, 7) ROWS_2(do, 8)

#include "isa.inc"

/* x86_amx.c: the same kernels, and those of terms. */
extern const convt3d_term_kernels convt3d_terms__x86_amx;
int convt3d_supported__x86_amx(void);

const convt3d_kernels convt3d_kernels__x86_amx = {
    .name = "x86_amx",
    .supported = convt3d_supported__x86_amx,
    .type = {&PASTE(f32, kernels, ISA), &PASTE(f64, kernels, ISA)},
    .movers = ISA_MOVERS,
    .terms = &convt3d_terms__x86_amx};
#else
typedef int convt3d_no_x86_avx512;
#endif
