/* formula: the activations by their formulas, in long double.
 * SPDX-License-Identifier: MIT */
#include "formula.h"

#include <math.h>

/* x/(1 + exp(-v)), whatever the size of v. */
static real gate(real x, real v) {
    return v > 0 ? x / (1 + expl(-v)) : x * expl(v) / (1 + expl(v));
}

real formula(convt3d_activation activation, double negative_slope, real x) {
    const real pi = 3.14159265358979323846264338327950288L;
    switch (activation) {
    case CONVT3D_ACTIVATION_RELU:
        return x < 0 ? 0 : x;
    case CONVT3D_ACTIVATION_LEAKY_RELU:
        return x > 0 ? x : x * negative_slope;
    case CONVT3D_ACTIVATION_GELU:
        return x / 2 * erfcl(-x * sqrtl(0.5L)); /* erfc(-z) = 1 + erf(z) */
    case CONVT3D_ACTIVATION_GELU_TANH:
        /* (1 + tanh(v/2))/2 = 1/(1 + exp(-v)) */
        return gate(x, sqrtl(8 / pi) * x * (1 + 0.044715L * x * x));
    case CONVT3D_ACTIVATION_SIGMOID:
        return gate(1, x);
    case CONVT3D_ACTIVATION_TANH:
        return tanhl(x);
    default:
        return x;
    }
}

static real unit(real y, convt3d_dtype dtype) {
    static const int fraction[] = {[CONVT3D_FLOAT32] = 23,
                                   [CONVT3D_FLOAT64] = 52,
                                   [CONVT3D_BFLOAT16] = 7,
                                   [CONVT3D_FLOAT16] = 10};
    static const int lowest[] = {[CONVT3D_FLOAT32] = -149,
                                 [CONVT3D_FLOAT64] = -1074,
                                 [CONVT3D_BFLOAT16] = -133,
                                 [CONVT3D_FLOAT16] = -24};
    const int digits = fraction[dtype], least = lowest[dtype];
    const int place = y == 0 ? least : ilogbl(y) - digits;
    return ldexpl(1, place > least ? place : least);
}

real formula_error(convt3d_activation activation, double negative_slope, real x, real y,
                   convt3d_dtype dtype) {
    double slope = dtype == CONVT3D_FLOAT64 ? negative_slope : (float)negative_slope;
    const real expected = formula(activation, slope, x);
    if (isnan(expected) && isnan(y)) return 0;
    if (isinf(expected) && y == expected) return 0;
    return fabsl(y - expected) / unit(expected, dtype);
}

real formula_bound(convt3d_activation activation, real y, convt3d_dtype dtype) {
    if (activation < CONVT3D_ACTIVATION_LEAKY_RELU) return 0.5L;
    if (activation == CONVT3D_ACTIVATION_LEAKY_RELU)
        return dtype == CONVT3D_FLOAT32 || dtype == CONVT3D_FLOAT64 ? 0.5L : 0.5001L;
    if (dtype == CONVT3D_FLOAT32) return 0.6L;
    if (dtype != CONVT3D_FLOAT64) return 0.5001L; /* float32's, rounded once more */
    return fabsl(y) < 0x1p-1016L ? 28 : 8;        /* a factor of it is subnormal */
}
