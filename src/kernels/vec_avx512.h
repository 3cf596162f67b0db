/* vec_avx512: 64-byte vectors with fused multiply-add; the operations are those
 * of vec_generic.h.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_VEC_AVX512_H
#define CONVT3D_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define TARGET __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw")))

#define VF       __m512
#define VF_LANES 16
#define VD       __m512d
#define VD_LANES 8
#define VH       __m256

static inline TARGET VF vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline TARGET VF vf_some(const float *p, int64_t count) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
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

static inline TARGET void vf_part(float *p, VF v, int64_t count) {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), v);
}
static inline TARGET void vf_stream(float *p, VF v) {
    _mm512_stream_ps(p, v);
}
static inline TARGET void vf_zip(VF a, VF b, VF *low, VF *high) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *low = _mm512_permutex2var_ps(a, first, b);
    *high = _mm512_permutex2var_ps(a, _mm512_add_epi32(first, _mm512_set1_epi32(8)), b);
}
static inline TARGET VF vf_even(VF a, VF b) {
    return _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30), b);
}
static inline TARGET VF vf_odd(VF a, VF b) {
    return _mm512_permutex2var_ps(
        a, _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31), b);
}
/* The first 'count' elements of 'kept', then those of v. */
static inline TARGET VF vf_join(VF kept, VF v, int64_t count) {
    const __m512i number = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i from = _mm512_sub_epi32(number, _mm512_set1_epi32((int)count));
    return _mm512_mask_mov_ps(_mm512_permutexvar_ps(from, v), (__mmask16)((1u << count) - 1), kept);
}

/* Elements of 16 bits, as many as a VF has. */
#define TO_NEAREST (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define VU         __m256i
static inline TARGET VU vu_load(const uint16_t *p) {
    return _mm256_loadu_si256((const __m256i *)p);
}
static inline TARGET VU vu_some(const uint16_t *p, int64_t count) {
    return _mm256_maskz_loadu_epi16((__mmask16)((1u << count) - 1), p);
}
static inline TARGET void vu_part(uint16_t *p, VU v, int64_t count) {
    _mm256_mask_storeu_epi16(p, (__mmask16)((1u << count) - 1), v);
}
static inline TARGET VF vf_from_bf16(VU v) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
/* To bfloat16 in the upper halves; not by the CPU's own instruction, for which subnormals are
 * 0. */
static inline TARGET __m512i bf16_bits(VF v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    __m512i up = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    up = _mm512_mask_add_epi32(up, odd, up, _mm512_set1_epi32(1));
    return _mm512_mask_or_epi32(up, nan, bits, _mm512_set1_epi32(0x400000));
}
static inline TARGET VU vf_to_bf16(VF v) {
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(bf16_bits(v), 16));
}
static inline TARGET VF vf_from_f16(VU v) {
    return _mm512_cvtph_ps(v);
}
static inline TARGET VU vf_to_f16(VF v) {
    return _mm512_cvtps_ph(v, TO_NEAREST);
}
/* Twice as many. */
#define VW __m512i
static inline TARGET VW vw_load(const uint16_t *p) {
    return _mm512_loadu_si512(p);
}
static inline TARGET void vw_store(uint16_t *p, VW v) {
    _mm512_storeu_si512(p, v);
}
static inline TARGET void vw_part(uint16_t *p, VW v, int64_t count) {
    _mm512_mask_storeu_epi16(p, (__mmask32)((UINT64_C(1) << count) - 1), v);
}
static inline TARGET void vw_stream(uint16_t *p, VW v) {
    _mm512_stream_si512((__m512i *)p, v);
}
static inline TARGET VW vw_join(VW kept, VW v, int64_t count) {
    uint16_t numbers[32];
    for (int i = 0; i < 32; i++) numbers[i] = (uint16_t)i;
    const __m512i from =
        _mm512_sub_epi16(_mm512_loadu_si512(numbers), _mm512_set1_epi16((short)count));
    return _mm512_mask_mov_epi16(_mm512_permutexvar_epi16(from, v),
                                 (__mmask32)((UINT64_C(1) << count) - 1), kept);
}
static inline TARGET VW vw_pair(VU a, VU b) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(a),
                           _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}
#define vw_pair_bf16 vw_pair_bf16
static inline TARGET VW vw_pair_bf16(VF a, VF b) {
    return _mm512_mask_mov_epi16(bf16_bits(b), 0x55555555, _mm512_srli_epi32(bf16_bits(a), 16));
}
static inline TARGET VW vw_both(VU a, VU b) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}
static inline TARGET float vs_from_f16(uint16_t x) {
    return _mm_cvtss_f32(_mm_maskz_cvtph_ps(1, _mm_cvtsi32_si128(x)));
}
static inline TARGET uint16_t vs_to_f16(float x) {
    return (uint16_t)_mm_cvtsi128_si32(_mm_maskz_cvtps_ph(1, _mm_set_ss(x), TO_NEAREST));
}

static inline TARGET VD vd_load(const double *p) {
    return _mm512_loadu_pd(p);
}
static inline TARGET VD vd_some(const double *p, int64_t count) {
    return _mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), p);
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
static inline TARGET void vd_part(double *p, VD v, int64_t count) {
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << count) - 1), v);
}
static inline TARGET void vd_stream(double *p, VD v) {
    _mm512_stream_pd(p, v);
}
static inline TARGET void vd_zip(VD a, VD b, VD *low, VD *high) {
    *low = _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b);
    *high = _mm512_permutex2var_pd(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b);
}
static inline TARGET VD vd_even(VD a, VD b) {
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14), b);
}
static inline TARGET VD vd_odd(VD a, VD b) {
    return _mm512_permutex2var_pd(a, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), b);
}
static inline TARGET VD vd_join(VD kept, VD v, int64_t count) {
    const __m512i number = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
    const __m512i from = _mm512_sub_epi64(number, _mm512_set1_epi64(count));
    return _mm512_mask_mov_pd(_mm512_permutexvar_pd(from, v), (__mmask8)((1u << count) - 1), kept);
}

/* As many of 16 bits as a VD has. */
static inline TARGET VH vh_from_bf16(const uint16_t *p) {
    const __m128i v = _mm_loadu_si128((const __m128i *)p);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
static inline TARGET VH vh_from_f16(const uint16_t *p) {
    return _mm512_castps512_ps256(
        _mm512_cvtph_ps(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)p))));
}
static inline TARGET VH vh_narrow(VD v) {
    return _mm512_cvtpd_ps(v);
}
static inline TARGET VD vd_widen(VH v) {
    return _mm512_cvtps_pd(v);
}

#endif
