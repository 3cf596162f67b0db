/* x86_amx: what the two files of the products of terms share.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_X86_AMX_H
#define CONVT3D_X86_AMX_H

#include "kernel.h"

#include <immintrin.h>

#define TARGET                                                                                     \
    __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,amx-tile,amx-bf16")))
#define INLINE static inline __attribute__((always_inline)) TARGET

/* x86_amx_split.c: as the kernels' of these names. */
void convt3d_split_rows__x86_amx(const convt3d_term_rows *rows);
void convt3d_split_lines__x86_amx(const convt3d_term_lines *lines);
void convt3d_split_weights__x86_amx(const convt3d_term_weights *w);

#endif
