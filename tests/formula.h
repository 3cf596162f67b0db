/* formula: the activations once more, by their formulas and sharing no code with
 * the library, to judge the library by.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TESTS_FORMULA_H
#define CONVT3D_TESTS_FORMULA_H

#include "oracle.h"

enum {
    ACTIVATIONS = 7
};

real formula(convt3d_activation activation, double negative_slope, real x);

/* The error of y as an f(x), in units of the last place of the dtype at f(x); 0 where
 * both are NaN or the same infinity. */
real formula_error(convt3d_activation activation, double negative_slope, real x, real y,
                   convt3d_dtype dtype);

/* The bound on it that docs/numerics.md gives, where f(x) is y. */
real formula_bound(convt3d_activation activation, real y, convt3d_dtype dtype);

#endif
