/* terms: which data may be multiplied as sums of bfloat16 terms.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TERMS_H
#define CONVT3D_TERMS_H

#include "plan.h"

static inline convt3d_range convt3d_range_none(void) {
    return (convt3d_range){0, UINT32_MAX};
}

static inline void convt3d_range_add(convt3d_range *range, const convt3d_range *more) {
    if (more->most > range->most) range->most = more->most;
    if (more->least < range->least) range->least = more->least;
}

/* Whether sums of k products of the two ranges' numbers may be taken as sums of products of
 * terms. */
int convt3d_ranges_fit(const convt3d_plan *plan, const convt3d_range *x, const convt3d_range *w,
                       double k, int terms);

/* Whether a plan's isa and dtype have terms at all; how many, where they are used; how it
 * multiplies, for people: by so many terms, or (0) as float32, because of 'why'. */
int convt3d_has_terms(const convt3d_plan *plan);
int convt3d_terms_of(const convt3d_plan *plan);
void convt3d_describe_terms(const convt3d_plan *plan, int terms, const char *why,
                            convt3d_text *text);

enum {
    CONVT3D_TERM_CHANNELS = 16 /* a group has at least so many on both sides */
};

#endif
