/* vec_generic: 16-byte vectors in the compiler's portable extension, which any
 * CPU with SSE2, NEON or nothing at all can run.
 *
 * A vector header gives, for T = float (VF_*) and double (VD_*): the type, its
 * lanes, and load, store, set1 and fma (a*b + c; here with two roundings where
 * the CPU has no fused one).
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_VEC_GENERIC_H
#define CONVT3D_VEC_GENERIC_H

#include <string.h>

typedef float vf_generic __attribute__((vector_size(16)));
typedef double vd_generic __attribute__((vector_size(16)));

#define TARGET

#define VF       vf_generic
#define VF_LANES 4
#define VD       vd_generic
#define VD_LANES 2

static inline VF vf_load(const float *p) {
    VF v;
    memcpy(&v, p, sizeof v);
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

static inline VD vd_load(const double *p) {
    VD v;
    memcpy(&v, p, sizeof v);
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

#endif
