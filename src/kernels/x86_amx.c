/* x86_amx: products of bfloat16 terms on CPUs with AMX (Sapphire Rapids and later); all
 * else is x86_avx512's.
 *
 * A tile register is 16 rows of 64 bytes.  With positions as its rows, one line each, every
 * row that is loaded is a whole cache line, whatever the tap: a row that lies across two
 * lines would take six times as long (measured: 2.4 and 15.6 ns a tile).
 *
 * A product of two tiles takes 16 cycles, and a tile that one needs should be loaded while
 * others are multiplied.  So of the four loaded tiles two change at a time, each right after
 * the last product that reads it, with two products still to come that don't.
 * SPDX-License-Identifier: MIT */
#if defined(__x86_64__)
#include "kernel.h"

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define TARGET                                                                                     \
    __attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,avx512bf16,amx-tile,amx-bf16")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    TILE_BYTES = CONVT3D_TERM_TILE * CONVT3D_TERM_LINE
};

/* ---- The CPU, and the system's permission ------------------------------------------------ */

extern const convt3d_kernels convt3d_kernels__x86_avx512;
int convt3d_supported__x86_amx(void);

/* Linux keeps room for the tiles of a thread only in processes that have asked for it; the
 * answer is for the whole process and its children. */
static int permitted(void) {
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum {
        ARCH_REQ_XCOMP_PERM = 0x1023,
        XFEATURE_XTILEDATA = 18
    };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
    return 0;
#endif
}

static int find_out(void) {
    const unsigned amx = 1u << 24 | 1u << 22, bf16 = 1u << 5; /* TILE and BF16; AVX512_BF16 */
    const unsigned tiles = 3u << 17, osxsave = 1u << 27;
    unsigned a, b, c, d, low, high;
    if (!convt3d_kernels__x86_avx512.supported()) return 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & osxsave)) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & amx) != amx) return 0;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & bf16)) return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return (low & tiles) == tiles && permitted();
}

/* Asked once; several threads at a time get the same answer. */
int convt3d_supported__x86_amx(void) {
    static int known; /* atomic: 0 not yet, 1 yes, 2 no */
    int answer = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (!answer) {
        answer = find_out() ? 1 : 2;
        __atomic_store_n(&known, answer, __ATOMIC_RELAXED);
    }
    return answer == 1;
}

/* ---- The state of the tiles --------------------------------------------------------------- */

typedef struct configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} configuration;

/* Assembler, as the compilers' own functions say of the 64 bytes that only 8 are read. */
INLINE void load_configuration(const configuration *c) {
    __asm__ volatile("ldtilecfg %0" : : "m"(*c) : "memory");
}

static TARGET void begin(char state[CONVT3D_TERM_LINE]) {
    configuration old, all = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        all.rows[i] = CONVT3D_TERM_TILE;
        all.row_bytes[i] = CONVT3D_TERM_LINE;
    }
    __asm__ volatile("sttilecfg %0" : "=m"(old) : : "memory");
    memcpy(state, &old, sizeof old);
    load_configuration(&all);
}

/* By the ABI a call may change what is in the tiles, as any other vector register. */
static TARGET void end(const char state[CONVT3D_TERM_LINE]) {
    configuration old;
    memcpy(&old, state, sizeof old);
    if (old.palette)
        load_configuration(&old);
    else
        _tile_release();
}

/* ---- Products ------------------------------------------------------------------------------- */

/* Tiles 0 to 3 are the sums: 2*(half of the positions) + (half of the channels); 4 and 5
 * positions, 6 and 7 weights. */
#define LOAD_A0(t) _tile_loadd(4, a + (t)*a_term, CONVT3D_TERM_LINE)
#define LOAD_A1(t)                                                                                 \
    if (two_a) _tile_loadd(5, a + (t)*a_term + TILE_BYTES, CONVT3D_TERM_LINE)
#define LOAD_B0(t) _tile_loadd(6, b + (t)*b_term, CONVT3D_TERM_LINE)
#define LOAD_B1(t)                                                                                 \
    if (two_b) _tile_loadd(7, b + (t)*b_term + b_half, CONVT3D_TERM_LINE)
#define ADD_00 _tile_dpbf16ps(0, 4, 6)
#define ADD_01                                                                                     \
    if (two_b) _tile_dpbf16ps(1, 4, 7)
#define ADD_10                                                                                     \
    if (two_a) _tile_dpbf16ps(2, 5, 6)
#define ADD_11                                                                                     \
    if (two_a && two_b) _tile_dpbf16ps(3, 5, 7)

/* Of one block the product of first terms. */
INLINE void large(const char *a, const char *b, int64_t a_term, int64_t b_term, int64_t b_half,
                  int two_a, int two_b) {
    LOAD_A0(0);
    LOAD_B0(0);
    ADD_00;
    LOAD_B1(0);
    ADD_01;
    LOAD_A1(0);
    ADD_10;
    ADD_11;
}

/* The two products of a first and a second term. */
INLINE void small_two(const char *a, const char *b, int64_t a_term, int64_t b_term, int64_t b_half,
                      int two_a, int two_b) {
    LOAD_A0(1);
    LOAD_B0(0);
    ADD_00;
    LOAD_B1(0);
    ADD_01;
    LOAD_A1(1);
    ADD_10;
    LOAD_A0(0);
    LOAD_B0(1);
    ADD_11;
    LOAD_A1(0);
    ADD_00;
    LOAD_B1(1);
    ADD_10;
    ADD_01;
    ADD_11;
}

/* All five but the large one: (a3, b1) (a2, b1) (a2, b2) (a1, b2) (a1, b3). */
INLINE void small_five(const char *a, const char *b, int64_t a_term, int64_t b_term, int64_t b_half,
                       int two_a, int two_b) {
    LOAD_A0(2);
    LOAD_B0(0);
    ADD_00;
    LOAD_B1(0);
    ADD_01;
    LOAD_A1(2);
    LOAD_A0(1);
    ADD_10;
    ADD_11;
    LOAD_A1(1);
    ADD_00;
    ADD_10;
    LOAD_B0(1);
    ADD_01;
    ADD_11;
    LOAD_B1(1);
    ADD_00;
    ADD_01;
    LOAD_A0(0);
    ADD_10;
    ADD_11;
    LOAD_A1(0);
    ADD_00;
    ADD_10;
    LOAD_B0(2);
    ADD_01;
    ADD_11;
    LOAD_B1(2);
    ADD_00;
    ADD_01;
    ADD_10;
    ADD_11;
}

INLINE void sum(const convt3d_term_tile *tile, int terms, int large_ones, int two_a, int two_b) {
    const int64_t a_term = tile->a_term, b_term = tile->b_term, b_half = tile->b_half;
    for (int64_t s = 0; s < tile->count; s++) {
        const convt3d_segment *segment = &tile->segments[s];
        const char *a = (const char *)tile->a + segment->a * CONVT3D_TERM_LINE;
        const char *b = (const char *)tile->b + segment->b * CONVT3D_TERM_LINE;
        for (int64_t k = 0; k < segment->k; k += CONVT3D_TERM_BLOCK) {
            if (large_ones)
                large(a, b, a_term, b_term, b_half, two_a, two_b);
            else if (terms == 2)
                small_two(a, b, a_term, b_term, b_half, two_a, two_b);
            else
                small_five(a, b, a_term, b_term, b_half, two_a, two_b);
            a += tile->a_block;
            b += tile->b_block;
        }
    }
}

INLINE void product(const convt3d_term_tile *tile, int terms, int two_a, int two_b) {
    const int64_t row = tile->c_row * (int64_t)sizeof(float);
    float *c = tile->c, *below = c + CONVT3D_TERM_TILE * tile->c_row;
    if (tile->accumulate) {
        _tile_loadd(0, c, row);
        if (two_b) _tile_loadd(1, c + CONVT3D_TERM_TILE, row);
        if (two_a) _tile_loadd(2, below, row);
        if (two_a && two_b) _tile_loadd(3, below + CONVT3D_TERM_TILE, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    if (terms > 1 && tile->which != CONVT3D_LARGE_PRODUCTS) sum(tile, terms, 0, two_a, two_b);
    if (tile->which != CONVT3D_SMALL_PRODUCTS) sum(tile, terms, 1, two_a, two_b);
    _tile_stored(0, c, row);
    if (two_b) _tile_stored(1, c + CONVT3D_TERM_TILE, row);
    if (two_a) _tile_stored(2, below, row);
    if (two_a && two_b) _tile_stored(3, below + CONVT3D_TERM_TILE, row);
}

#define PRODUCT(name, terms)                                                                       \
    static TARGET void name(const convt3d_term_tile *tile) {                                       \
        const int two_a = tile->rows > CONVT3D_TERM_TILE;                                          \
        const int two_b = tile->columns > CONVT3D_TERM_TILE;                                       \
        if (two_a && two_b)                                                                        \
            product(tile, terms, 1, 1);                                                            \
        else if (two_a)                                                                            \
            product(tile, terms, 1, 0);                                                            \
        else if (two_b)                                                                            \
            product(tile, terms, 0, 1);                                                            \
        else                                                                                       \
            product(tile, terms, 0, 0);                                                            \
    }
PRODUCT(product_medium, 1)
PRODUCT(product_high, 2)
PRODUCT(product_highest, 3)

/* ---- Ranges -----------------------------------------------------------------------------------
 */

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

/* ---- Rows to terms ------------------------------------------------------------------------------
 */

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

static TARGET void split_rows(const convt3d_term_rows *rows) {
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

static TARGET void split_lines(const convt3d_term_lines *lines) {
    ranges range = no_range();
    if (lines->turned)
        lines_of_positions(lines, lines->terms, &range);
    else
        lines_of_channels(lines, lines->terms, &range);
    add_range(lines->range, &range);
}

static TARGET void split_weights(const convt3d_term_weights *w) {
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

const convt3d_term_kernels convt3d_terms__x86_amx = {
    .begin = begin,
    .end = end,
    .product = {product_medium, product_high, product_highest},
    .split_rows = split_rows,
    .split_weights = split_weights,
    .split_lines = split_lines,
};
#else
typedef int convt3d_no_x86_amx;
#endif
