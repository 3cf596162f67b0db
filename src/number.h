/* number: single elements of every dtype, and how those of 16 bits are rounded.
 *
 * bfloat16 is the first half of a float32; float16 is IEEE's binary16: 1 bit of sign, 5 of
 * exponent, 10 of fraction.  Both round to nearest, ties to even, whatever the caller's
 * rounding mode; subnormals are numbers like any other; a NaN stays one, and keeps what
 * fits of its bits, as CPUs do it.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_NUMBER_H
#define CONVT3D_NUMBER_H

#include "convt3d.h"

#include <string.h>

static inline uint32_t convt3d_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float convt3d_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float convt3d_from_bf16(uint16_t x) {
    return convt3d_float((uint32_t)x << 16);
}

static inline uint16_t convt3d_to_bf16(float x) {
    const uint32_t bits = convt3d_bits(x);
    const int nan = (bits & 0x7fffffff) > 0x7f800000;
    return (uint16_t)((nan ? bits | 0x400000 : bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Without the sign, 13 bits higher, a float16's bits are those of a float32 2^112 times as
 * small. */
static inline float convt3d_from_f16(uint16_t x) {
    const uint32_t sign = (uint32_t)(x & 0x8000) << 16, bits = (uint32_t)(x & 0x7fff) << 13;
    if (bits >= 0x0f800000) { /* Inf or NaN, which is made a quiet one */
        return convt3d_float(sign | bits | 0x70000000 | (bits > 0x0f800000 ? 0x400000 : 0));
    }
    if (bits >= 0x00800000) return convt3d_float(sign | (bits + 0x38000000));
    const float small = (float)(x & 0x7fff) * 0x1p-24F;
    return convt3d_float(sign | convt3d_bits(small));
}

static inline uint16_t convt3d_to_f16(float x) {
    const uint32_t bits = convt3d_bits(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (size >> 13 & 0x3ff));
    if (size >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65,520 and more */
    if (size >= 0x38800000)                                   /* 2^-14 and more: normal */
        return (uint16_t)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
    if (size < 0x33000000) return (uint16_t)sign; /* less than half of 2^-24 */
    const uint32_t whole = (size & 0x7fffff) | 0x800000, shift = 126 - (size >> 23);
    const uint32_t half = UINT32_C(1) << (shift - 1), odd = whole >> shift & 1;
    return (uint16_t)(sign | (whole + half - 1 + odd) >> shift);
}

/* Whether 'data' may be 'count' elements of a dtype; the names are those of the arguments.  ARG,
 * DTYPE or OVERFLOW. */
convt3d_status convt3d_array_check(const void *data, const char *name, convt3d_dtype dtype,
                                   const char *dtype_name, int64_t count, convt3d_error *err);

/* One element; what becomes 16 bits is rounded once, from all of the double's. */
double convt3d_number_get(convt3d_dtype dtype, const void *from);
void convt3d_number_put(convt3d_dtype dtype, void *to, double value);

#endif
