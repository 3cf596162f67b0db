/* vec_generic: 16-byte vectors in the compiler's portable extension, which any
 * CPU with SSE2, NEON or nothing at all can run.
 *
 * A vector header gives, for T = float (VF_*) and double (VD_*): the type, its
 * lanes, and load, store, set1, fma (a*b + c; here with two roundings where the
 * CPU has no fused one), some (the first elements, then zeros), part (a store of
 * the first elements only), stream (a
 * store past the caches, to an aligned address), zip (a0 b0 a1 b1 ... in two
 * vectors) and even (a0 a2 ... b0 b2 ...).  VH is VD_LANES floats, which
 * vd_widen() and vh_narrow() turn into doubles and back.  VU is VF_LANES elements of 16
 * bits, with load, some and part (vu_*); vf_from_bf16(), vf_to_bf16() and the same of f16 make
 * floats of them and back, as number.h says, vh_from_* those for doubles.  VW is twice as
 * many, with load, store, part, stream and join (vw_*), vw_pair() (of two VU: a0 b0 a1 b1 ...)
 * and vw_both() (a0 a1 ... b0 b1 ...).
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_VEC_GENERIC_H
#define CONVT3D_VEC_GENERIC_H

#include "number.h"

#include <stdint.h>
#include <string.h>

typedef float vf_generic __attribute__((vector_size(16)));
typedef double vd_generic __attribute__((vector_size(16)));
typedef float vh_generic __attribute__((vector_size(8)));

#define TARGET

#define VF       vf_generic
#define VF_LANES 4
#define VD       vd_generic
#define VD_LANES 2
#define VH       vh_generic

static inline VF vf_load(const float *p) {
    VF v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline VF vf_some(const float *p, int64_t count) {
    VF v = {0};
    memcpy(&v, p, (size_t)count * sizeof *p);
    return v;
}
static inline void vf_store(float *p, VF v) {
    memcpy(p, &v, sizeof v);
}
static inline VF vf_set1(float x) {
    return (VF){x, x, x, x};
}
static inline VF vf_fma(VF a, VF b, VF c) {
    return a * b + c;
}

static inline void vf_part(float *p, VF v, int64_t count) {
    memcpy(p, &v, (size_t)count * sizeof *p);
}
static inline void vf_stream(float *p, VF v) {
    memcpy(p, &v, sizeof v);
}
static inline void vf_zip(VF a, VF b, VF *low, VF *high) {
    *low = (VF){a[0], b[0], a[1], b[1]};
    *high = (VF){a[2], b[2], a[3], b[3]};
}
static inline VF vf_even(VF a, VF b) {
    return (VF){a[0], a[2], b[0], b[2]};
}
static inline VF vf_odd(VF a, VF b) {
    return (VF){a[1], a[3], b[1], b[3]};
}
static inline VF vf_join(VF kept, VF v, int64_t count) {
    for (int64_t i = count; i < VF_LANES; i++) kept[i] = v[i - count];
    return kept;
}

typedef uint16_t vu_generic __attribute__((vector_size(8)));
#define VU vu_generic
static inline VU vu_load(const uint16_t *p) {
    VU v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline VU vu_some(const uint16_t *p, int64_t count) {
    VU v = {0};
    memcpy(&v, p, (size_t)count * sizeof *p);
    return v;
}
static inline void vu_part(uint16_t *p, VU v, int64_t count) {
    memcpy(p, &v, (size_t)count * sizeof *p);
}
static inline VF vf_from_bf16(VU v) {
    return (VF){convt3d_from_bf16(v[0]), convt3d_from_bf16(v[1]), convt3d_from_bf16(v[2]),
                convt3d_from_bf16(v[3])};
}
static inline VU vf_to_bf16(VF v) {
    return (VU){convt3d_to_bf16(v[0]), convt3d_to_bf16(v[1]), convt3d_to_bf16(v[2]),
                convt3d_to_bf16(v[3])};
}
static inline VF vf_from_f16(VU v) {
    return (VF){convt3d_from_f16(v[0]), convt3d_from_f16(v[1]), convt3d_from_f16(v[2]),
                convt3d_from_f16(v[3])};
}
static inline VU vf_to_f16(VF v) {
    return (VU){convt3d_to_f16(v[0]), convt3d_to_f16(v[1]), convt3d_to_f16(v[2]),
                convt3d_to_f16(v[3])};
}
typedef uint16_t vw_generic __attribute__((vector_size(16)));
#define VW vw_generic
static inline VW vw_load(const uint16_t *p) {
    VW v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void vw_store(uint16_t *p, VW v) {
    memcpy(p, &v, sizeof v);
}
static inline void vw_part(uint16_t *p, VW v, int64_t count) {
    memcpy(p, &v, (size_t)count * sizeof *p);
}
static inline void vw_stream(uint16_t *p, VW v) {
    memcpy(p, &v, sizeof v);
}
static inline VW vw_join(VW kept, VW v, int64_t count) {
    for (int64_t i = count; i < 2 * VF_LANES; i++) kept[i] = v[i - count];
    return kept;
}
static inline VW vw_both(VU a, VU b) {
    return (VW){a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]};
}
static inline VW vw_pair(VU a, VU b) {
    return (VW){a[0], b[0], a[1], b[1], a[2], b[2], a[3], b[3]};
}

#define vs_from_f16 convt3d_from_f16
#define vs_to_f16   convt3d_to_f16

static inline VD vd_load(const double *p) {
    VD v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline VD vd_some(const double *p, int64_t count) {
    VD v = {0};
    memcpy(&v, p, (size_t)count * sizeof *p);
    return v;
}
static inline void vd_store(double *p, VD v) {
    memcpy(p, &v, sizeof v);
}
static inline VD vd_set1(double x) {
    return (VD){x, x};
}
static inline VD vd_fma(VD a, VD b, VD c) {
    return a * b + c;
}
static inline void vd_part(double *p, VD v, int64_t count) {
    memcpy(p, &v, (size_t)count * sizeof *p);
}
static inline void vd_stream(double *p, VD v) {
    memcpy(p, &v, sizeof v);
}
static inline void vd_zip(VD a, VD b, VD *low, VD *high) {
    *low = (VD){a[0], b[0]};
    *high = (VD){a[1], b[1]};
}
static inline VD vd_even(VD a, VD b) {
    return (VD){a[0], b[0]};
}
static inline VD vd_odd(VD a, VD b) {
    return (VD){a[1], b[1]};
}
static inline VD vd_join(VD kept, VD v, int64_t count) {
    for (int64_t i = count; i < VD_LANES; i++) kept[i] = v[i - count];
    return kept;
}

static inline VH vh_from_bf16(const uint16_t *p) {
    return (VH){convt3d_from_bf16(p[0]), convt3d_from_bf16(p[1])};
}
static inline VH vh_from_f16(const uint16_t *p) {
    return (VH){convt3d_from_f16(p[0]), convt3d_from_f16(p[1])};
}
static inline VH vh_narrow(VD v) {
    return __builtin_convertvector(v, VH);
}
static inline VD vd_widen(VH v) {
    return __builtin_convertvector(v, VD);
}

#endif
