/* test_halves: dtypes of 16 bits: every number of them, how others are rounded to them, and
 * layers that are wide enough for products of tiles.
 * SPDX-License-Identifier: MIT
 *
 * test_layer, test_numbers and test_rounding have layers of these dtypes among theirs. */
#include "judge.h"
#include "terms.h"

#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;

/* ---- Numbers -------------------------------------------------------------------- */

static const convt3d_dtype halves[2] = {CONVT3D_BFLOAT16, CONVT3D_FLOAT16};

static void convert(void *to, convt3d_dtype to_dtype, const void *from, convt3d_dtype from_dtype) {
    assert_int_equal(convt3d_convert(to, to_dtype, from, from_dtype, 1, NULL), CONVT3D_OK);
}

/* What a number becomes in a dtype of 16 bits, as a double, bits and all. */
static void check_rounded(convt3d_dtype dtype, const void *from, convt3d_dtype from_dtype,
                          double value) {
    const real want = material_round(dtype, value);
    uint16_t bits;
    double got;
    convert(&bits, dtype, from, from_dtype);
    convert(&got, CONVT3D_FLOAT64, &bits, dtype);
    if (isnan(value) ? isnan(got) : got == want && signbit(got) == signbit(value)) return;
    fail_msg("%a becomes %a in %s, not %La", value, got, convt3d_dtype_name(dtype), want);
}

/* Each of the 65,536, and what float32 and float64 have on both sides of it and of the
 * middle between it and the next. */
static void every_number_and_its_neighbours(void **state) {
    (void)state;
    const int step = 100 / (test_count(100) > 0 ? test_count(100) : 1);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 0x10000; i += step) {
            const uint16_t bits = (uint16_t)i, next = (uint16_t)(i + 1);
            uint16_t back;
            float single;
            double value, beyond;
            convert(&value, CONVT3D_FLOAT64, &bits, halves[k]);
            convert(&single, CONVT3D_FLOAT32, &bits, halves[k]);
            convert(&beyond, CONVT3D_FLOAT64, &next, halves[k]);
            convert(&back, halves[k], &single, CONVT3D_FLOAT32);
            assert_true(isnan(value) ? isnan(single) : (double)single == value);
            if (!isnan(value)) assert_int_equal(back, bits);
            const double middle = isinf(beyond) ? copysign(k ? 65520 : 0x1.ffp127, value)
                                                : value + (beyond - value) / 2;
            const double around[] = {value,
                                     middle,
                                     nextafter(value, 0),
                                     nextafter(value, copysign(INFINITY, value)),
                                     nextafter(middle, 0),
                                     nextafter(middle, copysign(INFINITY, value))};
            for (int j = 0; j < 6; j++) {
                float near = (float)around[j];
                check_rounded(halves[k], &around[j], CONVT3D_FLOAT64, around[j]);
                check_rounded(halves[k], &near, CONVT3D_FLOAT32, (double)near);
            }
        }
    }
}

static void any_float(void **state) {
    (void)state;
    rng r = {seed};
    for (int i = 0; i < test_count(300000); i++) {
        const uint32_t bits = (uint32_t)rng_next(&r);
        float value;
        memcpy(&value, &bits, sizeof value);
        for (int k = 0; k < 2; k++)
            check_rounded(halves[k], &value, CONVT3D_FLOAT32, (double)value);
    }
}

static void conversions_refused(void **state) {
    (void)state;
    float x[2] = {1, 2}, y[2] = {3, 4};
    convt3d_error err;
    assert_int_equal(convt3d_convert(y, CONVT3D_FLOAT32, x, (convt3d_dtype)5, 2, &err),
                     CONVT3D_DTYPE);
    assert_non_null(strstr(err.text, "from_dtype is 5"));
    assert_int_equal(convt3d_convert(y, (convt3d_dtype)-1, x, CONVT3D_FLOAT32, 2, &err),
                     CONVT3D_DTYPE);
    assert_non_null(strstr(err.text, "to_dtype is -1"));
    assert_int_equal(convt3d_convert(y, CONVT3D_FLOAT32, x, CONVT3D_FLOAT32, -1, &err),
                     CONVT3D_ARG);
    assert_int_equal(convt3d_convert(NULL, CONVT3D_FLOAT32, x, CONVT3D_FLOAT32, 1, &err),
                     CONVT3D_ARG);
    assert_int_equal(convt3d_convert(y, CONVT3D_FLOAT64, x, CONVT3D_FLOAT32, INT64_MAX, &err),
                     CONVT3D_OVERFLOW);
    assert_true(y[0] == 3 && y[1] == 4);
    assert_int_equal(convt3d_convert(NULL, CONVT3D_FLOAT32, NULL, CONVT3D_FLOAT16, 0, &err),
                     CONVT3D_OK);
    assert_null(convt3d_dtype_name((convt3d_dtype)0));
    assert_int_equal(convt3d_dtype_size((convt3d_dtype)5), 0);
    assert_string_equal(convt3d_dtype_name(CONVT3D_FLOAT16), "float16");
}

/* ---- Wide layers ------------------------------------------------------------------ */

static const char *const texts[] = {"n2ci32co32i2x3x17k3s2p1op1", "ci48co40i3x4x33k3",
                                    "n3ci48co32i4k4s2p1", "n2ci40co64i3x2x20k2s2",
                                    "ci32co33i3x4x40k3s2p1mreflect"};
enum {
    TEXTS = sizeof texts / sizeof *texts
};

/* Numbers, rounded once to what memory holds; NaN where the oracle has NaN. */
static void judge_same(const layer *l, real *const expected[4], const char *who, void *arg) {
    int64_t *compared = arg;
    for (int role = 0; role < 4; role++) {
        if (!layer_unknown(l->direction, (oracle_role)role)) continue;
        for (int64_t i = 0; i < oracle_count(&l->p, (oracle_role)role); i++, ++*compared) {
            const real want = layer_round(l, role, expected[role][i]), got = l->value[role][i];
            if (isnan(want) ? isnan(got) : got == want) continue;
            print_error("role %d, element %lld: %Lg, but the oracle says %Lg\n", role, (long long)i,
                        got, want);
            judge_wrong(l, who, "another number");
        }
    }
}

static layer make(rng *r, int text, int half, convt3d_direction d, int flags) {
    convt3d_problem p;
    assert_int_equal(convt3d_problem_parse(texts[text], &p, NULL, 0, NULL), CONVT3D_OK);
    p.dtype = halves[half];
    layer l = layer_make(r, &p, d, flags);
    for (int role = 0; role < 4; role++)
        for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
            l.value[role][i] = (real)rng_between(r, -3, 3);
    return l;
}

static void integers_are_exact(void **state) {
    (void)state;
    rng r = {seed + 1};
    int64_t compared = 0;
    for (int i = 0; i < terms_cases(TEXTS * 2); i++) {
        for (int d = 0; d < 3; d++) {
            layer l = make(&r, i / 2, i % 2, (convt3d_direction)d, 0);
            judge_all(&l, 1, judge_same, &compared);
            layer_free(&l);
        }
    }
    assert_true(compared > 10000);
}

/* Numbers that tiles take as 0, beside others: results are what all other kernels make of
 * them, and so are numbers that float32 can't hold the products of. */
static void ends_of_the_range(void **state) {
    (void)state;
    rng r = {seed + 2};
    int64_t compared = 0;
    for (int i = 0; i < terms_cases(9); i++) {
        static const real scale[] = {0x1p-133L, 0x1p-126L, 0x1p-101L};
        for (int d = 0; d < 3; d++) {
            layer l = make(&r, i / 3 % TEXTS, 0, (convt3d_direction)d, LAYER_DENSE);
            const int small = d == 1 ? ORACLE_OUTPUT : ORACLE_INPUT;
            for (int64_t j = 0; j < oracle_count(&l.p, (oracle_role)small); j++)
                l.value[small][j] *= scale[i % 3];
            for (int64_t j = 0; d == 0 && j < l.p.out_channels; j++)
                l.value[ORACLE_BIAS][j] *= scale[i % 3];
            judge_all(&l, d != 1, judge_same, &compared);
            layer_free(&l);
        }
    }
    for (int d = 0; d < 3; d++) { /* NaN and Inf where their taps reach */
        layer l = make(&r, 0, 0, (convt3d_direction)d, LAYER_DENSE);
        const int role = d == 1 ? ORACLE_OUTPUT : ORACLE_INPUT;
        const int64_t count = oracle_count(&l.p, (oracle_role)role);
        l.value[role][rng_between(&r, 0, count - 1)] = NAN;
        l.value[role][rng_between(&r, 0, count - 1)] = INFINITY;
        judge_all(&l, d != 1, judge_same, &compared);
        layer_free(&l);
    }
}

/* A plan says so; at any precision, since these products are exact. */
static void plans_say_what_they_multiply(void **state) {
    (void)state;
    char text[4096];
    convt3d_problem p = terms_problem("ci64co64i8x16x32k3s2p1op1");
    for (int precision = 0; precision < 3; precision++) {
        for (int d = 0; d < 3; d++) {
            convt3d_options o;
            convt3d_plan *plan;
            convt3d_options_init(&o);
            o.precision = (convt3d_precision)precision;
            p.dtype = CONVT3D_BFLOAT16;
            assert_int_equal(convt3d_plan_create(&p, (convt3d_direction)d, &o, &plan, NULL),
                             CONVT3D_OK);
            convt3d_plan_describe(plan, text, sizeof text);
            convt3d_plan_free(plan);
            assert_true(!strstr(text, "products: one of bfloat16") == !terms_there());
        }
    }
}

/* The bytes don't depend on threads, nor forward and backward_input on the batch's split. */
static void bytes_are_the_same(void **state) {
    (void)state;
    rng r = {seed + 3};
    for (int i = 0; i < terms_cases(TEXTS); i++) {
        for (int d = 0; d < 3; d++) {
            layer l = make(&r, i, 0, (convt3d_direction)d, LAYER_DENSE | LAYER_ONE_DTYPE);
            const int result = d == 0 ? ORACLE_OUTPUT : d == 1 ? ORACLE_INPUT : ORACLE_WEIGHT;
            const material *m = &l.tensor[result];
            unsigned char *first = malloc(m->memory.size);
            for (int role = 0; role < 4; role++) {
                for (int64_t j = 0; j < oracle_count(&l.p, (oracle_role)role); j++)
                    l.value[role][j] = rng_normal(&r);
                if (layer_known((convt3d_direction)d, (oracle_role)role))
                    layer_store(&l, (oracle_role)role);
            }
            for (int threads = 1; threads <= 5; threads += 2) {
                convt3d_options o;
                convt3d_plan *plan;
                convt3d_options_init(&o);
                o.threads = threads;
                assert_int_equal(convt3d_plan_create(&l.p, (convt3d_direction)d, &o, &plan, NULL),
                                 CONVT3D_OK);
                assert_int_equal(layer_run(&l, plan, NULL, 1, CONVT3D_OVERWRITE, NULL, NULL),
                                 CONVT3D_OK);
                convt3d_plan_free(plan);
                if (threads == 1) memcpy(first, m->memory.data, m->memory.size);
                assert_memory_equal(first, m->memory.data, m->memory.size);
            }
            free(first);
            layer_free(&l);
        }
    }
}

/* What is rounded to 16 bits is to the nearest, whatever the caller wants elsewhere: single
 * numbers, and products that float32 holds and 16 bits don't, on every instruction set. */
static void other_roundings(void **state) {
    (void)state;
    const float third = 1.0f / 3;
    rng r = {seed + 5};
    for (int k = 0; k < 2; k++) {
        uint16_t nearest, up;
        convert(&nearest, halves[k], &third, CONVT3D_FLOAT32);
        fesetround(FE_UPWARD);
        convert(&up, halves[k], &third, CONVT3D_FLOAT32);
        fesetround(FE_TONEAREST);
        assert_int_equal(up, nearest);
    }
    for (int i = 0; convt3d_isa_name(i); i++) {
        for (int k = 0; k < 2 && convt3d_isa_supported(convt3d_isa_name(i)); k++) {
            convt3d_problem p =
                terms_problem(k ? "ci1co2i2x3x37k1f16" : "ci1co2i2x3x37k1x1x2s2bf16");
            convt3d_options o;
            convt3d_plan *plan;
            convt3d_options_init(&o);
            o.isa = convt3d_isa_name(i);
            layer l = layer_make(&r, &p, CONVT3D_FORWARD, LAYER_DENSE | LAYER_ONE_DTYPE);
            for (int role = 0; role < 2; role++) {
                for (int64_t j = 0; j < oracle_count(&p, (oracle_role)role); j++)
                    l.value[role][j] = rng_normal(&r);
                layer_store(&l, (oracle_role)role);
            }
            const material *y = &l.tensor[ORACLE_OUTPUT];
            unsigned char *nearest = malloc(y->memory.size);
            assert_int_equal(convt3d_plan_create(&p, CONVT3D_FORWARD, &o, &plan, NULL), CONVT3D_OK);
            layer_run(&l, plan, NULL, 0, CONVT3D_OVERWRITE, NULL, NULL);
            memcpy(nearest, y->memory.data, y->memory.size);
            fesetround(FE_UPWARD);
            layer_run(&l, plan, NULL, 0, CONVT3D_OVERWRITE, NULL, NULL);
            fesetround(FE_TONEAREST);
            assert_memory_equal(nearest, y->memory.data, y->memory.size);
            free(nearest);
            convt3d_plan_free(plan);
            layer_free(&l);
        }
    }
}

/* ---- What may be float32 ------------------------------------------------------------ */

/* Gradients of the weights keep in float32 what rounding would lose: 512 times 1 and then
 * 1 (and 2^-9 a step in the other type). */
static void gradients_in_float32(void **state) {
    (void)state;
    enum {
        STEPS = 1024
    };
    convt3d_problem p;
    convt3d_plan *plan;
    uint16_t one = 0x3f80, half_grad = 0;
    float grad = 0, bias = 0, read;
    const int64_t size[5] = {1, 1, 1, 1, 1};
    assert_int_equal(convt3d_problem_parse("ci1co1i1k1bf16", &p, NULL, 0, NULL), CONVT3D_OK);
    assert_int_equal(convt3d_plan_create(&p, CONVT3D_BACKWARD_WEIGHT, NULL, &plan, NULL),
                     CONVT3D_OK);
    const convt3d_tensor x = convt3d_tensor_dense(&one, CONVT3D_BFLOAT16, 5, size);
    const convt3d_tensor dw = convt3d_tensor_dense(&grad, CONVT3D_FLOAT32, 5, size);
    const convt3d_tensor db = convt3d_tensor_dense(&bias, CONVT3D_FLOAT32, 1, size);
    const convt3d_tensor half = convt3d_tensor_dense(&half_grad, CONVT3D_BFLOAT16, 5, size);
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(
            convt3d_backward_weight(plan, &x, &x, &dw, &db, CONVT3D_ACCUMULATE, NULL, NULL),
            CONVT3D_OK);
        assert_int_equal(
            convt3d_backward_weight(plan, &x, &x, &half, NULL, CONVT3D_ACCUMULATE, NULL, NULL),
            CONVT3D_OK);
    }
    convt3d_plan_free(plan);
    convert(&read, CONVT3D_FLOAT32, &half_grad, CONVT3D_BFLOAT16);
    assert_true(grad == STEPS && bias == STEPS);
    assert_true(read == 256); /* from where 1 more is half of a unit */
}

static void what_may_not(void **state) {
    (void)state;
    rng r = {seed + 4};
    convt3d_error err;
    for (int d = 0; d < 3; d++) {
        for (int role = 0; role < 4; role++) {
            if (d == CONVT3D_BACKWARD_INPUT && role == ORACLE_BIAS) continue;
            const int may = role == ORACLE_BIAS || (d == 2 && role == ORACLE_WEIGHT);
            for (int k = 0; k < 2; k++) {
                layer l = make(&r, 3, k, (convt3d_direction)d, LAYER_DENSE | LAYER_ONE_DTYPE);
                convt3d_plan *plan;
                assert_int_equal(convt3d_plan_create(&l.p, (convt3d_direction)d, NULL, &plan, NULL),
                                 CONVT3D_OK);
                l.tensor[role].tensor.dtype = may ? CONVT3D_FLOAT64 : CONVT3D_FLOAT32;
                assert_int_equal(layer_run(&l, plan, NULL, 1, CONVT3D_OVERWRITE, NULL, &err),
                                 CONVT3D_DTYPE);
                assert_non_null(strstr(err.text, convt3d_dtype_name(halves[k])));
                assert_true(!strstr(err.text, "or float32") == !may);
                l.tensor[role].tensor.dtype = halves[!k];
                assert_int_equal(layer_run(&l, plan, NULL, 1, CONVT3D_OVERWRITE, NULL, &err),
                                 CONVT3D_DTYPE);
                convt3d_plan_free(plan);
                layer_free(&l);
            }
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_and_its_neighbours),
        cmocka_unit_test(any_float),
        cmocka_unit_test(conversions_refused),
        cmocka_unit_test(integers_are_exact),
        cmocka_unit_test(ends_of_the_range),
        cmocka_unit_test(plans_say_what_they_multiply),
        cmocka_unit_test(bytes_are_the_same),
        cmocka_unit_test(other_roundings),
        cmocka_unit_test(gradients_in_float32),
        cmocka_unit_test(what_may_not),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("halves", tests, NULL, NULL);
}
