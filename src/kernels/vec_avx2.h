/* vec_avx2: 32-byte vectors with fused multiply-add; the operations are those
 * of vec_generic.h.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_VEC_AVX2_H
#define CONVT3D_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define TARGET __attribute__((target("avx2,fma,f16c")))

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

#define TO_NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define VU         __m128i
static inline TARGET VU vu_load(const uint16_t *p) {
    return _mm_loadu_si128((const __m128i *)p);
}
static inline TARGET VU vu_some(const uint16_t *p, int64_t count) {
    VU v = _mm_setzero_si128();
    memcpy(&v, p, (size_t)count * sizeof *p);
    return v;
}
static inline TARGET void vu_part(uint16_t *p, VU v, int64_t count) {
    memcpy(p, &v, (size_t)count * sizeof *p);
}
static inline TARGET VF vf_from_bf16(VU v) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
static inline TARGET VU vf_to_bf16(VF v) {
    const __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i more = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, more), 16);
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i all = _mm256_blendv_epi8(rounded, quiet, nan);
    return _mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
}
static inline TARGET VF vf_from_f16(VU v) {
    return _mm256_cvtph_ps(v);
}
static inline TARGET VU vf_to_f16(VF v) {
    return _mm256_cvtps_ph(v, TO_NEAREST);
}
#define VW __m256i
static inline TARGET VW vw_load(const uint16_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline TARGET void vw_store(uint16_t *p, VW v) {
    _mm256_storeu_si256((__m256i *)p, v);
}
static inline TARGET void vw_part(uint16_t *p, VW v, int64_t count) {
    memcpy(p, &v, (size_t)count * sizeof *p);
}
static inline TARGET void vw_stream(uint16_t *p, VW v) {
    _mm256_stream_si256((__m256i *)p, v);
}
static inline TARGET VW vw_join(VW kept, VW v, int64_t count) {
    uint16_t joined[32];
    vw_store(joined, kept);
    vw_store(joined + count, v);
    return vw_load(joined);
}
static inline TARGET VW vw_both(VU a, VU b) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}
static inline TARGET VW vw_pair(VU a, VU b) {
    return vw_both(_mm_unpacklo_epi16(a, b), _mm_unpackhi_epi16(a, b));
}
static inline TARGET float vs_from_f16(uint16_t x) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(x)));
}
static inline TARGET uint16_t vs_to_f16(float x) {
    return (uint16_t)_mm_cvtsi128_si32(_mm_cvtps_ph(_mm_set_ss(x), TO_NEAREST));
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

static inline TARGET VH vh_from_bf16(const uint16_t *p) {
    const __m128i v = _mm_loadl_epi64((const __m128i *)p);
    return _mm_castsi128_ps(_mm_slli_epi32(_mm_cvtepu16_epi32(v), 16));
}
static inline TARGET VH vh_from_f16(const uint16_t *p) {
    return _mm_cvtph_ps(_mm_loadl_epi64((const __m128i *)p));
}
static inline TARGET VH vh_narrow(VD v) {
    return _mm256_cvtpd_ps(v);
}
static inline TARGET VD vd_widen(VH v) {
    return _mm256_cvtps_pd(v);
}

#endif
