/* arithmetic: element by element, what training needs besides the layer.
 * SPDX-License-Identifier: MIT */
#include "glue.h"

#include <math.h>

/* One loop for each operation, so that compilers vectorise them.  'sa' and 'sb'
 * are 0 where an operand is one number for all elements, else 1. */
#define LOOP(expression)                                                                           \
    for (R_xlen_t i = 0; i < count; i++) {                                                         \
        const T x = a[i * sa], y = b[i * sb];                                                      \
        to[i] = (expression);                                                                      \
    }                                                                                              \
    return
#define OPERATIONS                                                                                 \
    switch (op) {                                                                                  \
    case '+':                                                                                      \
        LOOP(x + y);                                                                               \
    case '-':                                                                                      \
        LOOP(x - y);                                                                               \
    case '*':                                                                                      \
        LOOP(x *y);                                                                                \
    case '/':                                                                                      \
        LOOP(x / y);                                                                               \
    case '^':                                                                                      \
        LOOP((T)pow((double)x, (double)y));                                                        \
    case 'm':                                                                                      \
        LOOP(x > y || isnan(x) ? x : y); /* the larger; NaN stays */                               \
    case 's':                                                                                      \
        LOOP(y <= 0 ? 0 : x);                                                                      \
    }

#define T float
static void single(char op, T *to, const T *a, int sa, const T *b, int sb, R_xlen_t count) {
    OPERATIONS
}
#undef T
#define T double
static void dual(char op, T *to, const T *a, int sa, const T *b, int sb, R_xlen_t count) {
    OPERATIONS
}
#undef T

/* data op data, where both are of one type and length, or either is one number
 * (a double) for all elements. */
SEXP glue_r_arithmetic(SEXP op, SEXP a, SEXP b) {
    char what = CHAR(STRING_ELT(op, 0))[0];
    int single_a = TYPEOF(a) == RAWSXP, single_b = TYPEOF(b) == RAWSXP;
    int is_single = single_a || single_b;
    float number_a = is_single && !single_a ? (float)Rf_asReal(a) : 0;
    float number_b = is_single && !single_b ? (float)Rf_asReal(b) : 0;
    R_xlen_t size = is_single ? 4 : 1, long_a = Rf_xlength(a), long_b = Rf_xlength(b);
    R_xlen_t count = long_a > long_b ? long_a : long_b;
    if (is_single && !single_a) count = long_b;
    if (is_single && !single_b) count = long_a;
    if (!long_a || !long_b) count = 0; /* no element beside one number */
    count /= size;
    SEXP to = PROTECT(glue_storage(is_single ? CONVT3D_FLOAT32 : CONVT3D_FLOAT64, count));
    if (is_single)
        single(what, (float *)RAW(to), single_a ? (const float *)RAW(a) : &number_a, single_a,
               single_b ? (const float *)RAW(b) : &number_b, single_b, count);
    else
        dual(what, REAL(to), REAL(a), long_a == count, REAL(b), long_b == count, count);
    UNPROTECT(1);
    return to;
}

/* The sum of all elements, as a double. */
SEXP glue_r_sum(SEXP data) {
    double sum = 0;
    if (TYPEOF(data) == RAWSXP) {
        const float *at = (const float *)RAW(data);
        for (R_xlen_t i = 0; i < Rf_xlength(data) / 4; i++) sum += at[i];
    } else {
        for (R_xlen_t i = 0; i < Rf_xlength(data); i++) sum += REAL(data)[i];
    }
    return Rf_ScalarReal(sum);
}
