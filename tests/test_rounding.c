/* test_rounding: real numbers, whose errors must stay within proven bounds, and,
 * for kinds of data where one knows better, within what is usual.
 * SPDX-License-Identifier: MIT */
#include "judge.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;

typedef enum numbers {
    NORMALS,
    POSITIVE, /* magnitudes of normals */
    TENTHS,   /* all 0.1: every rounding goes the same way */
    WIDE,     /* over 30 binary orders of magnitude */
    CANCELLING,
    NUMBERS_COUNT
} numbers;

/* What the bounds are made of, and the errors that were met. */
typedef struct bounds {
    numbers kind;
    real *magnitude[4], *products[4]; /* S and K of each result */
    real *ratio;                      /* |error| / (u*S) of the direction at hand */
    int64_t ratios, room;
    int64_t compared;
} bounds;

/* Hard bound: |error| <= g(K+2)*S + (K+1)*least/2, g(n) = n*u/(1 - n*u).  The
 * chain of additions of a gradient is at most its number of products.  What memory holds
 * with 16 bits is that, rounded once more: to within half a unit of its last place. */
static void judge_bounds(const layer *l, real *const expected[4], const char *who, void *arg) {
    bounds *b = arg;
    int wide = l->p.dtype == CONVT3D_FLOAT64;
    real u = wide ? 0x1p-53L : 0x1p-24L, least = wide ? 0x1p-1074L : 0x1p-149L;
    for (int role = 0; role < 4; role++) {
        const convt3d_dtype dtype = l->tensor[role].tensor.dtype;
        const int half = convt3d_dtype_size(dtype) == 2, brain = dtype == CONVT3D_BFLOAT16;
        const real unit = half ? brain ? 0x1p-8L : 0x1p-11L : 0;
        const real end = half ? brain ? 0x1p-134L : 0x1p-25L : 0;
        for (int64_t i = 0; layer_unknown(l->direction, (oracle_role)role) &&
                            i < oracle_count(&l->p, (oracle_role)role);
             i++) {
            real error = fabsl(l->value[role][i] - expected[role][i]);
            real S = b->magnitude[role][i], K = b->products[role][i];
            real sum = (K + 2) * u / (1 - (K + 2) * u) * S + (K + 1) * least;
            real hard = unit * fabsl(expected[role][i]) + (1 + unit) * sum + end;
            /* Numbers may be Inf in float16, or results. */
            if (!isfinite(S) || (half && !(fabsl(expected[role][i]) + hard < 65504))) continue;
            if (!(error <= hard)) {
                print_error("role %d, element %lld: error %Lg, bound %Lg, K %Lg\n", role,
                            (long long)i, error, hard, K);
                judge_wrong(l, who, "beyond the error bound");
            }
            b->compared++;
            if (role == ORACLE_BIAS || S == 0 || b->kind > POSITIVE || half) continue;
            real alarm = b->kind == NORMALS ? 16 : 3 * sqrtl(K < 1 ? 1 : K);
            if (error > alarm * u * S) {
                print_error("role %d, element %lld: %Lg u*S, alarm at %Lg, K %Lg\n", role,
                            (long long)i, error / (u * S), alarm, K);
                judge_wrong(l, who, "worse than arithmetic of this kind should be");
            }
            if (b->ratios == b->room)
                b->ratio = realloc(b->ratio, (size_t)(b->room = 2 * b->room + 64) * sizeof(real));
            b->ratio[b->ratios++] = error / (u * S);
        }
    }
}

static real number(rng *r, numbers kind, int64_t i) {
    switch (kind) {
    case NORMALS:
        return rng_normal(r);
    case POSITIVE:
        return fabs(rng_normal(r));
    case TENTHS:
        return 0.1L;
    case WIDE:
        return ldexp(rng_normal(r), (int)rng_between(r, -15, 15));
    default: /* pairs that nearly cancel */
        return (i % 2 ? -1 : 1) * (1 + 1e-6 * rng_normal(r));
    }
}

/* S and K are the layer itself, of magnitudes and of ones. */
static void weigh(const layer *l, int with_bias, bounds *b) {
    for (int role = 0; role < 4; role++) {
        int64_t count = oracle_count(&l->p, (oracle_role)role);
        b->magnitude[role] = malloc((size_t)(count + 1) * sizeof(real));
        b->products[role] = malloc((size_t)(count + 1) * sizeof(real));
        for (int64_t i = 0; i < count; i++) {
            b->magnitude[role][i] = fabsl(l->value[role][i]);
            b->products[role][i] = 1;
        }
    }
    real *S[4], *K[4];
    memcpy(S, b->magnitude, sizeof S);
    memcpy(K, b->products, sizeof K);
    if (!with_bias) S[ORACLE_BIAS] = K[ORACLE_BIAS] = NULL;
    oracle_run(&l->p, l->direction, S);
    oracle_run(&l->p, l->direction, K);
}

static void check_rounding(rng *r, const convt3d_problem *p, numbers kind, bounds *b) {
    for (int d = 0; d < 3; d++) {
        layer l = layer_make(r, p, (convt3d_direction)d, LAYER_DENSE);
        for (int role = 0; role < 4; role++) {
            for (int64_t i = 0; i < oracle_count(p, (oracle_role)role); i++)
                l.value[role][i] = number(r, kind, i);
            if (layer_known((convt3d_direction)d, (oracle_role)role))
                layer_store(&l, (oracle_role)role);
        }
        weigh(&l, d != 1, b);
        b->kind = kind;
        judge_all(&l, d != 1, judge_bounds, b);
        for (int role = 0; role < 4; role++) {
            free(b->magnitude[role]);
            free(b->products[role]);
        }
        layer_free(&l);
    }
}

static int by_value(const void *a, const void *b) {
    real x = *(const real *)a, y = *(const real *)b;
    return (x > y) - (x < y);
}

/* Layers with long sums, beside the random ones. */
static const char *const long_sums[] = {"n1ci512co2i3k3p1",      "n1ci100co3i4k4s2p1",
                                        "n2ci3co20i7k5s2p2",     "n1ci256co2i3k3p1f64",
                                        "n1ci512co2i3k3p1bf16",  "n1ci200co3i4k4s2p1f16",
                                        "n1ci3co7i8x9x17k3s2p1", "n1ci2co2i7k7p3mreplicate"};

static void errors_within_bounds(void **state) {
    (void)state;
    rng r = {seed + 5};
    for (int kind = 0; kind < NUMBERS_COUNT; kind++) {
        bounds b = {0};
        size_t fixed = (size_t)test_count(sizeof long_sums / sizeof *long_sums);
        for (size_t i = 0; i < fixed + (size_t)test_count(60); i++) {
            convt3d_problem p;
            random_problem(&r, 20000, &p);
            if (i < fixed) convt3d_problem_parse(long_sums[i], &p, NULL, 0, NULL);
            check_rounding(&r, &p, (numbers)kind, &b);
        }
        assert_true(b.compared > 10000);
        if (kind == NORMALS) {
            qsort(b.ratio, (size_t)b.ratios, sizeof *b.ratio, by_value);
            real high = b.ratio[b.ratios * 99 / 100];
            print_message("99 %% of errors are below %.2Lf u*S, all below %.2Lf\n", high,
                          b.ratio[b.ratios - 1]);
            assert_true(high <= 3);
        }
        free(b.ratio);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_within_bounds),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("rounding", tests, NULL, NULL);
}
