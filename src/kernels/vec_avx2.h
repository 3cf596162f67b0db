/* vec_avx2: 32-byte vectors with fused multiply-add; the operations are those
 * of vec_generic.h.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_VEC_AVX2_H
#define CONVT3D_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define TARGET __attribute__((target("avx2,fma")))

#define VF       __m256
#define VF_LANES 8
#define VD       __m256d
#define VD_LANES 4
#define VH       __m128

static inline TARGET VF vf_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline TARGET VF vf_some(const float *p, int64_t count) {
    const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), place));
}
static inline TARGET void vf_store(float *p, VF v) {
    _mm256_storeu_ps(p, v);
}
static inline TARGET VF vf_set1(float x) {
    return _mm256_set1_ps(x);
}
static inline TARGET VF vf_fma(VF a, VF b, VF c) {
    return _mm256_fmadd_ps(a, b, c);
}

static inline TARGET void vf_part(float *p, VF v, int64_t count) {
    const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_maskstore_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), place), v);
}
static inline TARGET void vf_stream(float *p, VF v) {
    _mm256_stream_ps(p, v);
}
static inline TARGET void vf_zip(VF a, VF b, VF *low, VF *high) {
    const VF even = _mm256_unpacklo_ps(a, b), odd = _mm256_unpackhi_ps(a, b);
    *low = _mm256_permute2f128_ps(even, odd, 0x20);
    *high = _mm256_permute2f128_ps(even, odd, 0x31);
}
static inline TARGET VF vf_even(VF a, VF b) {
    const __m256d pairs = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0x88));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(pairs, 0xd8));
}
static inline TARGET VF vf_odd(VF a, VF b) {
    const __m256d pairs = _mm256_castps_pd(_mm256_shuffle_ps(a, b, 0xdd));
    return _mm256_castpd_ps(_mm256_permute4x64_pd(pairs, 0xd8));
}
static inline TARGET VF vf_join(VF kept, VF v, int64_t count) {
    const __m256i number = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i from = _mm256_sub_epi32(number, _mm256_set1_epi32((int)count));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(v, from), kept, _mm256_castsi256_ps(from));
}

static inline TARGET VD vd_load(const double *p) {
    return _mm256_loadu_pd(p);
}
static inline TARGET VD vd_some(const double *p, int64_t count) {
    const __m256i place = _mm256_setr_epi64x(0, 1, 2, 3);
    return _mm256_maskload_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), place));
}
static inline TARGET void vd_store(double *p, VD v) {
    _mm256_storeu_pd(p, v);
}
static inline TARGET VD vd_set1(double x) {
    return _mm256_set1_pd(x);
}
static inline TARGET VD vd_fma(VD a, VD b, VD c) {
    return _mm256_fmadd_pd(a, b, c);
}
static inline TARGET void vd_part(double *p, VD v, int64_t count) {
    const __m256i place = _mm256_setr_epi64x(0, 1, 2, 3);
    _mm256_maskstore_pd(p, _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), place), v);
}
static inline TARGET void vd_stream(double *p, VD v) {
    _mm256_stream_pd(p, v);
}
static inline TARGET void vd_zip(VD a, VD b, VD *low, VD *high) {
    const VD even = _mm256_unpacklo_pd(a, b), odd = _mm256_unpackhi_pd(a, b);
    *low = _mm256_permute2f128_pd(even, odd, 0x20);
    *high = _mm256_permute2f128_pd(even, odd, 0x31);
}
static inline TARGET VD vd_even(VD a, VD b) {
    return _mm256_permute4x64_pd(_mm256_unpacklo_pd(a, b), 0xd8);
}
static inline TARGET VD vd_odd(VD a, VD b) {
    return _mm256_permute4x64_pd(_mm256_unpackhi_pd(a, b), 0xd8);
}
static inline TARGET VD vd_join(VD kept, VD v, int64_t count) {
    return _mm256_castps_pd(vf_join(_mm256_castpd_ps(kept), _mm256_castpd_ps(v), 2 * count));
}

static inline TARGET VH vh_narrow(VD v) {
    return _mm256_cvtpd_ps(v);
}
static inline TARGET VD vd_widen(VH v) {
    return _mm256_cvtps_pd(v);
}

#endif
