/* x86_avx2: the kernels for CPUs with AVX2, FMA and F16C (Haswell, Zen, and later).
 * SPDX-License-Identifier: MIT */
#if defined(__x86_64__)
#include "vec_avx2.h"

#include <cpuid.h>

/* Not every compiler's __builtin_cpu_supports() knows of it. */
static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

#define ISA x86_avx2
#define ISA_SUPPORTED                                                                              \
    (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c())

#define DRAIN _mm_sfence

/* 12 sums, up to 3 vectors of b and 1 of a fit 16 registers. */
#define PANEL 3
#define TILES(do)                                                                                  \
    ROWS_12(do, 1) ROWS_6(do, 2) ROWS_4(do, 3) ROWS_2(do, 4) ROWS_1(do, 5) ROWS_1(do, 6)

#include "isa.inc"
#else
typedef int convt3d_no_x86_avx2;
#endif
