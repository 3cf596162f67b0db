/* x86_amx_split: float32 as bfloat16 terms, for the products of x86_amx.c.
 * SPDX-License-Identifier: MIT */
#if defined(__x86_64__)
#include "x86_amx.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    TILE_BYTES = CONVT3D_TERM_TILE * CONVT3D_TERM_LINE
};

/* ---- Ranges ---- */

/* 'least' is one less, so that 0 becomes the largest of all. */
typedef struct ranges {
    __m512i most, least;
} ranges;

INLINE void widen(ranges *r, __m512 x) {
    const __m512i bits = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
    r->most = _mm512_max_epu32(r->most, bits);
    r->least = _mm512_min_epu32(r->least, _mm512_sub_epi32(bits, _mm512_set1_epi32(1)));
}

INLINE ranges no_range(void) {
    return (ranges){_mm512_setzero_si512(), _mm512_set1_epi32(-1)};
}

INLINE void add_range(convt3d_range *range, const ranges *r) {
    const uint32_t most = _mm512_reduce_max_epu32(r->most);
    const uint32_t least = _mm512_reduce_min_epu32(r->least);
    if (most > range->most) range->most = most;
    if (least != UINT32_MAX && least + 1 < range->least) range->least = least + 1;
}

/* ---- Rows to terms ---- */

/* Two vectors' elements one after the other. */
INLINE __m512 zip_low(__m512 a, __m512 b) {
    const __m512i from = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, from, b);
}

INLINE __m512 zip_high(__m512 a, __m512 b) {
    const __m512i from =
        _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, from, b);
}

/* 16 channels of 16 positions, turned: out[p] has those of position p. */
INLINE void turn(__m512 out[16], const float *from, int64_t pitch, int64_t channels, __mmask16 mask,
                 ranges *range) {
    __m512 in[16];
    UNROLL for (int c = 0; c < 16; c++) {
        in[c] = c < channels ? _mm512_maskz_loadu_ps(mask, from + c * pitch) : _mm512_setzero_ps();
        widen(range, in[c]);
    }
    UNROLL for (int step = 0; step < 2; step++) {
        UNROLL for (int i = 0; i < 8; i++) {
            out[2 * i] = zip_low(in[i], in[i + 8]);
            out[2 * i + 1] = zip_high(in[i], in[i + 8]);
        }
        UNROLL for (int i = 0; i < 8; i++) {
            in[2 * i] = zip_low(out[i], out[i + 8]);
            in[2 * i + 1] = zip_high(out[i], out[i + 8]);
        }
    }
    UNROLL for (int i = 0; i < 16; i++) out[i] = in[i];
}

/* x to the 8 bits of bfloat16, rounded to nearest (Dekker's way: Numerische Mathematik 18,
 * 1971); what x lacks then is exact, and after two of these the rest has 8 bits itself. */
INLINE __m512 rounded(__m512 x) {
    const __m512 t = _mm512_mul_ps(x, _mm512_set1_ps(65537));
    return _mm512_sub_ps(t, _mm512_sub_ps(t, x));
}

/* One term of 16 channels and of the 16 after them, side by side by twos; what they lack. */
INLINE __m512i next_term(__m512 *x, __m512 *y, int last) {
    const __m512 first = last ? *x : rounded(*x), second = last ? *y : rounded(*y);
    *x = _mm512_sub_ps(*x, first);
    *y = _mm512_sub_ps(*y, second);
    return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(first), 16),
                                   _mm512_castps_si512(second));
}

INLINE void put_terms(char *to, int64_t to_term, __m512 x, __m512 y, int terms) {
    for (int t = 0; t < terms; t++)
        _mm512_store_si512(to + t * to_term, next_term(&x, &y, t == CONVT3D_TERMS - 1));
}

INLINE void split(const convt3d_term_rows *rows, int terms) {
    const int64_t pitch = rows->pitch, channels = rows->channels;
    __m512 half[16];
    ranges range = no_range();
    for (int64_t p0 = 0; p0 < rows->positions; p0 += 16) {
        const int64_t count = rows->positions - p0 < 16 ? rows->positions - p0 : 16;
        const __mmask16 mask = (__mmask16)((1u << count) - 1);
        const float *from = rows->from + p0;
        char *to = (char *)rows->to + p0 * CONVT3D_TERM_LINE;
        __m512 low[16];
        turn(half, from, pitch, channels, mask, &range);
        for (int p = 0; p < 16; p++) low[p] = half[p];
        if (channels > 16)
            turn(half, from + 16 * pitch, pitch, channels - 16, mask, &range);
        else
            for (int p = 0; p < 16; p++) half[p] = _mm512_setzero_ps();
        for (int64_t p = 0; p < count; p++, to += CONVT3D_TERM_LINE)
            put_terms(to, rows->to_term, low[p], half[p], terms);
    }
    add_range(rows->range, &range);
}

TARGET void convt3d_split_rows__x86_amx(const convt3d_term_rows *rows) {
    if (rows->terms == 3)
        split(rows, 3);
    else if (rows->terms == 2)
        split(rows, 2);
    else
        split(rows, 1);
}

/* A line of each of 32 channels for each 32 positions. */
INLINE void lines_of_channels(const convt3d_term_lines *l, int terms, ranges *range) {
    for (int64_t p = 0, block = 0; p < l->positions; p += CONVT3D_TERM_BLOCK, block++) {
        const int64_t there = l->positions - p, more = there - 16;
        const __mmask16 first = there < 16 ? (__mmask16)((1u << there) - 1) : 0xffff;
        const __mmask16 second = more <= 0 ? 0 : more < 16 ? (__mmask16)((1u << more) - 1) : 0xffff;
        char *to = (char *)l->to + block * l->to_block;
        for (int64_t c = 0; c < CONVT3D_TERM_BLOCK; c++, to += CONVT3D_TERM_LINE) {
            const float *from = l->from + c * l->pitch + p;
            const int is = c < l->channels;
            const __m512 x = _mm512_maskz_loadu_ps(is ? first : 0, from);
            const __m512 y = _mm512_maskz_loadu_ps(is ? second : 0, from + 16);
            widen(range, x);
            widen(range, y);
            put_terms(to, l->to_term, x, y, terms);
        }
    }
}

/* 16 channels of the 16 positions from p on. */
INLINE void positions_of(__m512 out[16], const convt3d_term_lines *l, int64_t p, ranges *range) {
    const int64_t there = l->positions - p;
    const __mmask16 mask = there <= 0 ? 0 : there < 16 ? (__mmask16)((1u << there) - 1) : 0xffff;
    turn(out, l->from + p, l->pitch, l->channels, mask, range);
}

INLINE void lines_of_positions(const convt3d_term_lines *l, int terms, ranges *range) {
    const int64_t lines = l->positions + CONVT3D_TERM_BLOCK;
    __m512 now[16], next[16];
    positions_of(now, l, 0, range);
    for (int64_t p = 0; p < lines; p += 16) {
        positions_of(next, l, p + 16, range);
        for (int64_t i = 0; i < 16 && p + i < lines; i++)
            put_terms((char *)l->to + (p + i) * CONVT3D_TERM_LINE, l->to_term, now[i], next[i],
                      terms);
        for (int i = 0; i < 16; i++) now[i] = next[i];
    }
}

TARGET void convt3d_split_lines__x86_amx(const convt3d_term_lines *lines) {
    ranges range = no_range();
    if (lines->turned)
        lines_of_positions(lines, lines->terms, &range);
    else
        lines_of_channels(lines, lines->terms, &range);
    add_range(lines->range, &range);
}

TARGET void convt3d_split_weights__x86_amx(const convt3d_term_weights *w) {
    ranges range = no_range();
    for (int64_t half = 0; half < 2; half++) {
        const int64_t there = w->m_count - 16 * half, count = there < 0    ? 0
                                                              : there < 16 ? there
                                                                           : 16;
        const __mmask16 mask = (__mmask16)((1u << count) - 1);
        for (int64_t k = 0; k < CONVT3D_TERM_BLOCK / 2; k++) {
            const float *from = w->from + k * w->pitch + 16 * half;
            char *to = (char *)w->to + half * TILE_BYTES + k * CONVT3D_TERM_LINE;
            const __mmask16 first = k < w->k_count ? mask : 0;
            const __mmask16 second = k + 16 < w->k_count ? mask : 0;
            const __m512 x = _mm512_maskz_loadu_ps(first, from);
            const __m512 y = _mm512_maskz_loadu_ps(second, from + 16 * w->pitch);
            widen(&range, x);
            widen(&range, y);
            put_terms(to, 2 * TILE_BYTES, x, y, w->terms);
        }
    }
    add_range(w->range, &range);
}
#else
typedef int convt3d_no_x86_amx_split;
#endif
