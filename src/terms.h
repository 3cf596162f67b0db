/* terms: which float32 data may be multiplied as sums of bfloat16 terms.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TERMS_H
#define CONVT3D_TERMS_H

#include "kernel.h"

#include <math.h>
#include <string.h>

static inline convt3d_range convt3d_range_none(void) {
    return (convt3d_range){0, UINT32_MAX};
}

static inline void convt3d_range_add(convt3d_range *range, const convt3d_range *more) {
    if (more->most > range->most) range->most = more->most;
    if (more->least < range->least) range->least = more->least;
}

static inline double convt3d_magnitude(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

/* Whether sums of k products of the two ranges' numbers may be taken as sums of products of
 * terms.  Splitting multiplies by 2^16 + 1; sums stay finite, whichever products come first;
 * with all three terms, the smallest ones and their products stay normal, since tiles take
 * subnormals as 0. */
static inline int convt3d_ranges_fit(const convt3d_range *x, const convt3d_range *w, double k,
                                     int terms) {
    const double each = 0x1p110, most = 0x1p126, least = 0x1p-100;
    const double x_most = convt3d_magnitude(x->most), w_most = convt3d_magnitude(w->most);
    if (!(x_most < each && w_most < each && x_most * w_most * k < most)) return 0;
    if (terms < CONVT3D_TERMS || x->most == 0 || w->most == 0) return 1;
    const double x_least = convt3d_magnitude(x->least), w_least = convt3d_magnitude(w->least);
    return x_least >= least && w_least >= least && x_least * w_least >= least;
}

#endif
