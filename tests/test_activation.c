/* test_activation: activations by name, as options, and as kernels: their errors,
 * special values, and that a value's place doesn't matter.
 * SPDX-License-Identifier: MIT */
#include "formula.h"
#include "kernel.h"
#include "material.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;

#define SLOPE 0.3

/* ---- Names and options ---------------------------------------------------- */

static void names(void **state) {
    (void)state;
    static const char *const expected[ACTIVATIONS] = {"none",      "relu",    "leaky_relu", "gelu",
                                                      "gelu_tanh", "sigmoid", "tanh"};
    convt3d_activation found;
    convt3d_error err;
    for (int a = 0; a < ACTIVATIONS; a++) {
        assert_string_equal(convt3d_activation_name((convt3d_activation)a), expected[a]);
        assert_int_equal(convt3d_activation_parse(expected[a], &found, NULL), CONVT3D_OK);
        assert_int_equal(found, a);
    }
    assert_null(convt3d_activation_name((convt3d_activation)ACTIVATIONS));
    assert_null(convt3d_activation_name((convt3d_activation)-1));
    assert_int_equal(convt3d_activation_parse("swish", &found, &err), CONVT3D_ARG);
    assert_int_equal(found, ACTIVATIONS - 1);
    assert_non_null(strstr(err.text, "'swish'"));
    for (int a = 0; a < ACTIVATIONS; a++) assert_non_null(strstr(err.text, expected[a]));
    assert_int_equal(convt3d_activation_parse(NULL, &found, &err), CONVT3D_ARG);
    assert_int_equal(convt3d_activation_parse("relu", NULL, &err), CONVT3D_ARG);
}

static convt3d_problem parse(const char *text) {
    convt3d_problem p;
    convt3d_error err;
    if (convt3d_problem_parse(text, &p, NULL, 0, &err)) fail_msg("%s", err.text);
    return p;
}

static void refuse(const char *problem, convt3d_direction direction, const convt3d_options *o,
                   const char *word, const char *other) {
    convt3d_problem p = parse(problem);
    convt3d_plan *plan = (convt3d_plan *)&p;
    convt3d_error err = {CONVT3D_OK, ""};
    assert_int_equal(convt3d_plan_create(&p, direction, o, &plan, &err), CONVT3D_ARG);
    assert_null(plan);
    if (!strstr(err.text, word) || !strstr(err.text, other)) fail_msg("%s", err.text);
}

static void options_that_make_no_sense(void **state) {
    (void)state;
    convt3d_options o;
    convt3d_options_init(&o);
    assert_int_equal(o.activation, CONVT3D_ACTIVATION_NONE);
    assert_true(o.negative_slope == 0.01);
    o.activation = (convt3d_activation)ACTIVATIONS;
    refuse("ci2co3i4k3", CONVT3D_FORWARD, &o, "options.activation is 7", "0 to 6");
    o.activation = (convt3d_activation)-1;
    refuse("ci2co3i4k3", CONVT3D_FORWARD, &o, "options.activation is -1", "0 to 6");
    for (int a = 1; a < ACTIVATIONS; a++) {
        o.activation = (convt3d_activation)a;
        for (int d = CONVT3D_BACKWARD_INPUT; d <= CONVT3D_BACKWARD_WEIGHT; d++)
            refuse("ci2co3i4k3", (convt3d_direction)d, &o,
                   convt3d_activation_name((convt3d_activation)a),
                   convt3d_direction_name((convt3d_direction)d));
    }
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        o.negative_slope = bad[i];
        refuse("ci2co3i4k3f64", CONVT3D_FORWARD, &o, "negative_slope", "float64");
    }
    o.negative_slope = -1e39;
    refuse("ci2co3i4k3", CONVT3D_FORWARD, &o, "negative_slope is -1e+39", "float32");
}

static const char *described(const convt3d_options *o) {
    static char text[4096];
    convt3d_problem p = parse("ci2co3i4k3f64");
    convt3d_plan *plan;
    convt3d_error err;
    if (convt3d_plan_create(&p, CONVT3D_FORWARD, o, &plan, &err)) fail_msg("%s", err.text);
    convt3d_plan_describe(plan, text, sizeof text);
    convt3d_plan_free(plan);
    return text;
}

static void plans_say_it(void **state) {
    (void)state;
    convt3d_options o;
    convt3d_options_init(&o);
    assert_null(strstr(described(&o), "activation"));
    o.activation = CONVT3D_ACTIVATION_GELU_TANH;
    assert_non_null(strstr(described(&o), "activation: gelu_tanh\n"));
    o.activation = CONVT3D_ACTIVATION_LEAKY_RELU;
    o.negative_slope = 1e39;
    assert_non_null(strstr(described(&o), "activation: leaky_relu, negative_slope 1e+39\n"));
    /* As of a program that knew nothing of activations: what follows isn't read. */
    o.struct_size = offsetof(convt3d_options, activation);
    o.threads = 1;
    o.algorithm = "reference";
    o.negative_slope = NAN;
    assert_null(strstr(described(&o), "activation"));
    assert_non_null(strstr(described(&o), "algorithm: reference"));
    assert_non_null(strstr(described(&o), "threads: 1\n"));
}

/* ---- Kernels --------------------------------------------------------------- */

static const convt3d_kernels *const isas[] = {
#define CONVT3D_ISA(name) &convt3d_kernels__##name,
#include "kernels/list.inc"
#undef CONVT3D_ISA
};
enum {
    ISAS = sizeof isas / sizeof *isas,
    ROW = 1024
};

static void fail_at(const char *isa, int a, double x, double y, real error) {
    fail_msg("%s on %s of %a (%.17g): %a, not %La, wrong by %.3Lg ulp",
             convt3d_activation_name((convt3d_activation)a), isa, x, x, y,
             formula((convt3d_activation)a, SLOPE, x), error);
}

/* Rows of numbers through every kernel; the worst errors in ulp. */
static void judge32(const float *x, int64_t count, real worst[ACTIVATIONS]) {
    float y[ROW];
    for (int i = 0; i < ISAS; i++) {
        if (!isas[i]->supported()) continue;
        for (int a = 0; a < ACTIVATIONS; a++) {
            const convt3d_activation f = (convt3d_activation)a;
            memcpy(y, x, (size_t)count * sizeof *y);
            isas[i]->type[0]->activate(y, count, 0, a, SLOPE);
            for (int64_t j = 0; j < count; j++) {
                real error = formula_error(f, SLOPE, x[j], y[j], CONVT3D_FLOAT32);
                if (!(error <= formula_bound(f, y[j], CONVT3D_FLOAT32)))
                    fail_at(isas[i]->name, a, x[j], y[j], error);
                if (error > worst[a]) worst[a] = error;
            }
        }
    }
}

static void judge64(const double *x, int64_t count, real worst[ACTIVATIONS]) {
    double y[ROW];
    for (int i = 0; i < ISAS; i++) {
        if (!isas[i]->supported()) continue;
        for (int a = 0; a < ACTIVATIONS; a++) {
            const convt3d_activation f = (convt3d_activation)a;
            memcpy(y, x, (size_t)count * sizeof *y);
            isas[i]->type[1]->activate(y, count, 0, a, SLOPE);
            for (int64_t j = 0; j < count; j++) {
                real error = formula_error(f, SLOPE, x[j], y[j], CONVT3D_FLOAT64);
                if (!(error <= formula_bound(f, y[j], CONVT3D_FLOAT64)))
                    fail_at(isas[i]->name, a, x[j], y[j], error);
                if (fabs(y[j]) > 0x1p-1000 && error > worst[a]) worst[a] = error;
            }
        }
    }
}

static void print_worst(const char *type, const real worst[ACTIVATIONS]) {
    for (int a = CONVT3D_ACTIVATION_GELU; a < ACTIVATIONS; a++)
        print_message("%s %s: at most %.3Lf ulp\n", type,
                      convt3d_activation_name((convt3d_activation)a), worst[a]);
}

/* All over the range of float: every step-th bit pattern, NaNs and all. */
static void errors_in_float32(void **state) {
    (void)state;
    rng r = {seed + 1};
    real worst[ACTIVATIONS] = {0};
    float row[ROW];
    const uint64_t step = 100 * (uint64_t)(rng_between(&r, 150, 170) * 100 / test_count(100)) + 1;
    int64_t count = 0, all = 0;
    for (uint64_t bits = 0; bits < UINT64_C(1) << 32; bits += step, all++) {
        const uint32_t pattern = (uint32_t)bits;
        memcpy(&row[count++], &pattern, sizeof pattern);
        if (count == ROW) judge32(row, count, worst), count = 0;
    }
    for (int i = 0; i < test_count(100) * 200; i++, all++) { /* where functions bend */
        row[count++] = (float)(rng_normal(&r) * (i % 3 ? 3 : 12));
        if (count == ROW) judge32(row, count, worst), count = 0;
    }
    judge32(row, count, worst);
    assert_true(all > 10000);
    print_worst("float32", worst);
}

static void errors_in_float64(void **state) {
    (void)state;
    rng r = {seed + 2};
    real worst[ACTIVATIONS] = {0};
    double row[ROW];
    for (int i = 0; i < test_count(60); i++) {
        for (int j = 0; j < ROW; j++) {
            row[j] = rng_normal(&r) * (j % 3 ? 2 : 20);
            if (j % 5 == 0) row[j] = ldexp(row[j], (int)rng_between(&r, -1070, 1000));
        }
        judge64(row, ROW, worst);
    }
    print_worst("float64", worst);
}

/* ---- Special values --------------------------------------------------------- */

/* By activation (leaky_relu with 0.25): what PyTorch gives in float64 for NaN, Inf, -Inf, -0, 0,
 * -1e30, 1e30. */
static const double special[7] = {NAN, INFINITY, -INFINITY, -0.0, 0.0, -1e30, 1e30};
static const double answers[ACTIVATIONS][7] = {
    {NAN, INFINITY, -INFINITY, -0.0, 0.0, -1e30, 1e30},
    {NAN, INFINITY, 0.0, -0.0, 0.0, 0.0, 1e30},
    {NAN, INFINITY, -INFINITY, -0.0, 0.0, -0.25e30, 1e30},
    {NAN, INFINITY, NAN, -0.0, 0.0, -0.0, 1e30},
    {NAN, INFINITY, NAN, -0.0, 0.0, -0.0, 1e30},
    {NAN, 1.0, 0.0, 0.5, 0.5, 0.0, 1.0},
    {NAN, 1.0, -1.0, -0.0, 0.0, -1.0, 1.0},
};

static void special_values(void **state) {
    (void)state;
    for (int i = 0; i < ISAS; i++) {
        if (!isas[i]->supported()) continue;
        for (int a = 0; a < ACTIVATIONS; a++) {
            float narrow[7];
            double wide[7];
            for (int j = 0; j < 7; j++) wide[j] = special[j], narrow[j] = (float)special[j];
            /* -0 adds nothing, not even the sign of a zero. */
            isas[i]->type[0]->activate(narrow, 7, -0.0, a, 0.25);
            isas[i]->type[1]->activate(wide, 7, -0.0, a, 0.25);
            for (int j = 0; j < 7; j++) {
                const double want = answers[a][j];
                if (isnan(want) ? isnan(narrow[j]) && isnan(wide[j])
                                : narrow[j] == (float)want && wide[j] == want &&
                                      !signbit(narrow[j]) == !signbit(want) &&
                                      !signbit(wide[j]) == !signbit(want))
                    continue;
                fail_msg("%s on %s of %g: %g and %g, not %g",
                         convt3d_activation_name((convt3d_activation)a), isas[i]->name, special[j],
                         narrow[j], wide[j], want);
            }
        }
    }
}

/* ---- Places ----------------------------------------------------------------- */

/* A value's result has the same bits in any place of rows of any length, and
 * nothing beside the row is touched. */
static void place_does_not_matter(void **state) {
    (void)state;
    enum {
        MOST = 70
    };
    static const double values[] = {-7.25, -1.1, -0.3, 0.7, 1.9, 4.4};
    for (int i = 0; i < ISAS; i++) {
        for (int run = 0; isas[i]->supported() && run < 2 * ACTIVATIONS * 6; run++) {
            const int wide = run % 2, a = run / 2 % ACTIVATIONS;
            const double value = values[run / 2 / ACTIVATIONS], bias = 0.375;
            const size_t each = wide ? 8 : 4;
            const float narrow = (float)value;
            unsigned char alone[8], row[8 * (MOST + 2)];
            memcpy(alone, wide ? (const void *)&value : &narrow, each);
            isas[i]->type[wide]->activate(alone, 1, bias, a, SLOPE);
            for (int64_t count = 0; count <= MOST; count++) {
                memset(row, 0xFF, sizeof row);
                for (int64_t j = 0; j < count; j++)
                    memcpy(row + each * (size_t)(j + 1), wide ? (const void *)&value : &narrow,
                           each);
                isas[i]->type[wide]->activate(row + each, count, bias, a, SLOPE);
                for (int64_t j = 0; j < count; j++)
                    assert_memory_equal(row + each * (size_t)(j + 1), alone, each);
                for (size_t j = 0; j < each; j++)
                    assert_true(row[j] == 0xFF && row[each * (size_t)(count + 1) + j] == 0xFF);
            }
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(options_that_make_no_sense),
        cmocka_unit_test(plans_say_it),
        cmocka_unit_test(errors_in_float32),
        cmocka_unit_test(errors_in_float64),
        cmocka_unit_test(special_values),
        cmocka_unit_test(place_does_not_matter),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("activation", tests, NULL, NULL);
}
