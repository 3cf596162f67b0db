/* vec_avx512: 64-byte vectors with fused multiply-add; the operations are those
 * of vec_generic.h.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_VEC_AVX512_H
#define CONVT3D_VEC_AVX512_H

#include <immintrin.h>

#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw")))

#define VF       __m512
#define VF_LANES 16
#define VD       __m512d
#define VD_LANES 8

static inline TARGET VF vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline TARGET void vf_store(float *p, VF v) {
    _mm512_storeu_ps(p, v);
}
static inline TARGET VF vf_set1(float x) {
    return _mm512_set1_ps(x);
}
static inline TARGET VF vf_fma(VF a, VF b, VF c) {
    return _mm512_fmadd_ps(a, b, c);
}

static inline TARGET VD vd_load(const double *p) {
    return _mm512_loadu_pd(p);
}
static inline TARGET void vd_store(double *p, VD v) {
    _mm512_storeu_pd(p, v);
}
static inline TARGET VD vd_set1(double x) {
    return _mm512_set1_pd(x);
}
static inline TARGET VD vd_fma(VD a, VD b, VD c) {
    return _mm512_fmadd_pd(a, b, c);
}

#endif
