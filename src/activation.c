/* activation: the functions that forward may apply to its output, by name and by
 * the C library's mathematics.  convt3d.h has the formulas.
 * SPDX-License-Identifier: MIT */
#include "activation.h"
#include "error.h"

#include <math.h>
#include <string.h>

enum {
    COUNT = 7
};
static const char *const names[COUNT] = {"none",      "relu",    "leaky_relu", "gelu",
                                         "gelu_tanh", "sigmoid", "tanh"};

const char *convt3d_activation_name(convt3d_activation activation) {
    return (unsigned)activation < COUNT ? names[activation] : NULL;
}

convt3d_status convt3d_activation_parse(const char *name, convt3d_activation *activation,
                                        convt3d_error *err) {
    if (!name || !activation)
        return convt3d_fail(err, CONVT3D_ARG, "%s is NULL", name ? "activation" : "name");
    for (int i = 0; i < COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            *activation = (convt3d_activation)i;
            return CONVT3D_OK;
        }
    }
    return convt3d_fail(err, CONVT3D_ARG,
                        "activation is '%.40s', but must be 'none', 'relu', 'leaky_relu', 'gelu', "
                        "'gelu_tanh', 'sigmoid' or 'tanh'",
                        name);
}

/* x*Phi(x) = x/2*erfc(z), z = -x/sqrt(2).  Where erfc is small its relative error
 * is 2*z^2 times that of z: 'low' is what z lacks, and erfc' = -2/sqrt(pi)*exp(-z^2). */
static double gelu(double x) {
    const double high = 0x1.6a09e667f3bcdp-1, rest = -0x1.bdd3413b26456p-55; /* 1/sqrt(2) */
    const double z = -x * high;
    double tail = erfc(z);
    if (z > 0.5) {
        double low = fma(-x, high, -z) - x * rest;
        tail -= low * 0x1.20dd750429b6dp+0 * exp(-z * z);
    }
    return 0.5 * x * tail;
}

/* x/2*(1 + tanh(v/2)) = x/(1 + exp(-v)), v = x*(c + d*x^2), c = 2*sqrt(2/pi), d =
 * 0.044715*c.  exp makes an absolute error of v a relative one of its own, so v is
 * kept as a sum of two doubles. */
static double gelu_tanh(double x) {
    const double c = 0x1.9884533d43651p+0, c_rest = -0x1.cbc0d30ebfd15p-54;
    const double d = 0x1.2444f2a4d8b4bp-4, d_rest = -0x1.6c843a29d1c70p-61;
    const double beyond = 30; /* exp(-v) is far below any double's effect */
    if (x > beyond) return x;
    if (x < -beyond) return x * 0.0; /* -0, and NaN for -Inf */
    const double square = x * x, square_rest = fma(x, x, -square);
    const double term = d * square;
    const double term_rest = fma(d, square, -term) + (d * square_rest + d_rest * square);
    const double sum = c + term, part = sum - c;
    const double sum_rest = ((c - (sum - part)) + (term - part)) + (term_rest + c_rest);
    const double v = x * sum, v_rest = fma(x, sum, -v) + x * sum_rest;
    if (x > 0) return x / (1 + exp(-v) * (1 - v_rest));
    const double small = exp(v) * (1 + v_rest);
    return x * small / (1 + small);
}

static double sigmoid(double x) {
    if (x > 0) return 1 / (1 + exp(-x));
    const double small = exp(x); /* exp(-x) might overflow */
    return small / (1 + small);
}

double convt3d_activation_value(convt3d_activation activation, double negative_slope, double x) {
    switch (activation) {
    case CONVT3D_ACTIVATION_RELU:
        return x < 0 ? 0 : x;
    case CONVT3D_ACTIVATION_LEAKY_RELU:
        return x > 0 ? x : x * negative_slope;
    case CONVT3D_ACTIVATION_GELU:
        return gelu(x);
    case CONVT3D_ACTIVATION_GELU_TANH:
        return gelu_tanh(x);
    case CONVT3D_ACTIVATION_SIGMOID:
        return sigmoid(x);
    case CONVT3D_ACTIVATION_TANH:
        return tanh(x);
    default:
        return x;
    }
}
