/* test_numbers: numbers at the ends of the range: NaN, Inf, subnormals, overflow
 * and zeros of both signs; and that the caller's own state stays as it is.
 * SPDX-License-Identifier: MIT */
#include "judge.h"

#include <fenv.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;

/* The same number, or NaN where the oracle has NaN. */
static void judge_same(const layer *l, real *const expected[4], const char *who, void *arg) {
    int64_t *special = arg;
    for (int role = 0; role < 4; role++)
        for (int64_t i = 0; layer_unknown(l->direction, (oracle_role)role) &&
                            i < oracle_count(&l->p, (oracle_role)role);
             i++) {
            real want = layer_round(l, role, expected[role][i]), got = l->value[role][i];
            if (isnan(want) ? !isnan(got) : !(got == want)) {
                print_error("role %d, element %lld: %Lg, but the oracle says %Lg\n", role,
                            (long long)i, got, want);
                judge_wrong(l, who, "another number");
            }
            if (special) special[isnan(want) ? 0 : isinf(want) ? 1 : 2]++;
        }
}

static void fill_integers(rng *r, layer *l) {
    for (int role = 0; role < 4; role++)
        for (int64_t i = 0; i < oracle_count(&l->p, (oracle_role)role); i++)
            l->value[role][i] = (real)rng_between(r, -3, 3);
}

/* ---- NaN and Inf -------------------------------------------------------- */

/* Scattered NaN and Inf between many zeros.  The oracle multiplies at the real
 * taps only, so it knows where 0*Inf arises, and where only a halo would. */
static void nan_and_inf_reach_their_outputs_only(void **state) {
    (void)state;
    rng r = {seed};
    int64_t special[3] = {0, 0, 0};
    for (int turn = 0, turns = test_count(500); turn < turns; turn++) {
        convt3d_problem p;
        random_problem(&r, 20000, &p);
        for (int d = 0; d < 3; d++) {
            layer l = layer_make(&r, &p, (convt3d_direction)d, turn % 2 ? LAYER_DENSE : 0);
            fill_integers(&r, &l);
            for (int times = (int)rng_between(&r, 1, 3); times; times--) {
                static const real values[] = {NAN, INFINITY, -INFINITY};
                int role = (int)rng_between(&r, 0, 3);
                int64_t count = oracle_count(&p, (oracle_role)role);
                if (!count || !layer_known((convt3d_direction)d, (oracle_role)role)) continue;
                l.value[role][rng_between(&r, 0, count - 1)] = values[rng_between(&r, 0, 2)];
            }
            judge_all(&l, 1, judge_same, special);
            layer_free(&l);
        }
    }
    for (int i = 0; i < 3; i++) assert_true(special[i] > special[0] / 100 && special[i] > 100);
}

/* One operand wholly Inf, the other positive: no NaN may come up anywhere, since
 * no zero is multiplied but those of halos, gaps and rounded-up sizes. */
static void inf_times_nothing(void **state) {
    (void)state;
    rng r = {seed + 1};
    int64_t special[3] = {0, 0, 0};
    for (int turn = 0, turns = test_count(200); turn < turns; turn++) {
        convt3d_problem p;
        random_problem(&r, 20000, &p);
        for (int d = 0; d < 3; d++)
            for (int role = 0; role < 3; role++) {
                if (!layer_known((convt3d_direction)d, (oracle_role)role)) continue;
                layer l = layer_make(&r, &p, (convt3d_direction)d, LAYER_DENSE);
                for (int other = 0; other < 4; other++)
                    for (int64_t i = 0; i < oracle_count(&p, (oracle_role)other); i++)
                        l.value[other][i] = other == role ? INFINITY : (real)(1 + i % 3);
                judge_all(&l, 1, judge_same, special);
                layer_free(&l);
            }
    }
    assert_int_equal(special[0], 0);
    assert_true(special[1] > 1000 && special[2] > 1000);
}

/* ---- The ends of the range ---------------------------------------------- */

/* Integers times the smallest subnormal: exact, as integers are. */
static void subnormals_are_exact(void **state) {
    (void)state;
    rng r = {seed + 2};
    int64_t special[3] = {0, 0, 0};
    for (int turn = 0, turns = test_count(200); turn < turns; turn++) {
        convt3d_problem p;
        random_problem(&r, 20000, &p);
        static const real leasts[] = {[CONVT3D_FLOAT32] = 0x1p-149L,
                                      [CONVT3D_FLOAT64] = 0x1p-1074L,
                                      [CONVT3D_BFLOAT16] = 0x1p-133L,
                                      [CONVT3D_FLOAT16] = 0x1p-24L};
        const real least = leasts[p.dtype];
        for (int d = 0; d < 3; d++) {
            layer l = layer_make(&r, &p, (convt3d_direction)d, LAYER_DENSE);
            fill_integers(&r, &l);
            /* The bias of forward stands beside products, so it is as small. */
            int small = rng_chance(&r, 50) && d < 2 ? ORACLE_WEIGHT : d == 1 ? 2 : 0;
            for (int64_t i = 0; i < oracle_count(&p, (oracle_role)small); i++)
                l.value[small][i] *= least;
            for (int64_t i = 0; i < p.out_channels && d == 0; i++) l.value[ORACLE_BIAS][i] *= least;
            judge_all(&l, d != 1, judge_same, special);
            layer_free(&l);
        }
    }
    assert_int_equal(special[0] + special[1], 0);
}

static void judge_overflow(const layer *l, real *const expected[4], const char *who, void *arg) {
    int64_t *infinite = arg;
    for (int role = 0; role < 3; role++)
        for (int64_t i = 0; layer_unknown(l->direction, (oracle_role)role) &&
                            i < oracle_count(&l->p, (oracle_role)role);
             i++) {
            real want = expected[role][i], got = l->value[role][i];
            /* Nothing to add up: 0.  Else far beyond the largest number. */
            if (want == 0 ? got != 0 : !isinf(got) || signbit(got) != signbit(want))
                judge_wrong(l, who, "overflow isn't Inf of its sign");
            *infinite += want != 0;
        }
}

/* Products beyond the range, all of one sign for each result. */
static void overflow_gives_inf_of_its_sign(void **state) {
    (void)state;
    rng r = {seed + 3};
    int64_t infinite = 0;
    for (int turn = 0, turns = test_count(100); turn < turns; turn++) {
        convt3d_problem p;
        random_problem(&r, 20000, &p);
        p.dtype = CONVT3D_FLOAT32; /* long double reaches far beyond */
        for (int d = 0; d < 3; d++) {
            layer l = layer_make(&r, &p, (convt3d_direction)d, LAYER_DENSE);
            real sign = rng_chance(&r, 50) ? 1 : -1;
            for (int role = 0; role < 3; role++)
                for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
                    l.value[role][i] = role == (d == 2 ? 2 : 1) ? sign * 0x1p100L : 0x1p90L;
            judge_all(&l, 0, judge_overflow, &infinite);
            layer_free(&l);
        }
    }
    assert_true(infinite > 10000);
}

/* Zeros of either sign, alone or between numbers, count as 0. */
static void zeros_of_both_signs(void **state) {
    (void)state;
    rng r = {seed + 4};
    for (int turn = 0, turns = test_count(60); turn < turns; turn++) {
        convt3d_problem p;
        random_problem(&r, 20000, &p);
        for (int d = 0; d < 3; d++) {
            layer l = layer_make(&r, &p, (convt3d_direction)d, LAYER_DENSE);
            fill_integers(&r, &l);
            for (int role = 0; role < 4; role++)
                for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
                    if (turn % 2 || l.value[role][i] == 0)
                        l.value[role][i] = rng_chance(&r, 50) ? -0.0L : 0.0L;
            judge_all(&l, 1, judge_same, NULL);
            layer_free(&l);
        }
    }
}

/* ---- The caller's state ------------------------------------------------- */

#if defined(__x86_64__) && defined(__GLIBC__)
/* Control words only: flags of exceptions that arose may be set. */
static uint64_t control(void) {
    fenv_t now;
    fegetenv(&now);
    return (uint64_t)now.__control_word << 32 | (now.__mxcsr & 0xFFC0);
}
#else
static uint64_t control(void) {
    return (uint64_t)fegetround();
}
#endif

/* In every rounding mode, and whatever is computed, subnormals included. */
static void floating_point_control_is_unchanged(void **state) {
    (void)state;
    static const int modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
    rng r = {seed + 6};
    for (int turn = 0; turn < 40; turn++) {
        convt3d_problem p;
        convt3d_plan *plan;
        random_problem(&r, 20000, &p);
        for (int d = 0; d < 3; d++) {
            layer l = layer_make(&r, &p, (convt3d_direction)d, LAYER_DENSE);
            for (int role = 0; role < 3; role++)
                for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
                    l.value[role][i] = rng_normal(&r) * (i % 3 ? 1 : 0x1p-130);
            for (int role = 0; role < 3; role++)
                if (layer_known((convt3d_direction)d, (oracle_role)role))
                    layer_store(&l, (oracle_role)role);
            fesetround(modes[turn % 4]);
            uint64_t before = control();
            convt3d_status status =
                convt3d_plan_create(&p, (convt3d_direction)d, NULL, &plan, NULL);
            if (!status) status = layer_run(&l, plan, NULL, 0, CONVT3D_OVERWRITE, NULL, NULL);
            convt3d_plan_free(plan);
            uint64_t after = control();
            fesetround(FE_TONEAREST);
            assert_int_equal(status, CONVT3D_OK);
            assert_true(before == after);
            layer_free(&l);
        }
    }
}

/* Workers started under one rounding mode work under the one that the caller has
 * now: the number of threads doesn't show. */
static void rounding_reaches_all_threads(void **state) {
    (void)state;
    enum {
        IN = 4 * 12 * 12 * 12,
        WEIGHT = 4 * 4 * 27,
        OUT = 4 * 14 * 14 * 14
    };
    const int64_t in[5] = {1, 4, 12, 12, 12}, weight[5] = {4, 4, 3, 3, 3},
                  out[5] = {1, 4, 14, 14, 14};
    static float x[IN], w[WEIGHT], y[3][OUT];
    rng r = {seed + 9};
    convt3d_problem p;
    convt3d_plan *plan;
    convt3d_options o;
    convt3d_run run;
    for (int i = 0; i < IN; i++) x[i] = (float)rng_normal(&r);
    for (int i = 0; i < WEIGHT; i++) w[i] = (float)rng_normal(&r);
    assert_int_equal(convt3d_problem_parse("ci4co4i12k3", &p, NULL, 0, NULL), CONVT3D_OK);
    convt3d_options_init(&o);
    o.threads = 4;
    assert_int_equal(convt3d_plan_create(&p, CONVT3D_FORWARD, &o, &plan, NULL), CONVT3D_OK);
    convt3d_run_init(&run);
    convt3d_tensor X = convt3d_tensor_dense(x, CONVT3D_FLOAT32, 5, in);
    convt3d_tensor W = convt3d_tensor_dense(w, CONVT3D_FLOAT32, 5, weight);
    for (int turn = 0; turn < 40; turn++) {
        for (int i = 0; i < 3; i++) { /* nearest on 4 threads; upward on 1, on 4 */
            convt3d_tensor Y = convt3d_tensor_dense(y[i], CONVT3D_FLOAT32, 5, out);
            run.threads = i == 1 ? 1 : 4;
            fesetround(i ? FE_UPWARD : FE_TONEAREST);
            convt3d_status status = convt3d_forward(plan, &X, &W, NULL, NULL, &Y, &run, NULL);
            fesetround(FE_TONEAREST);
            assert_int_equal(status, CONVT3D_OK);
        }
        assert_memory_not_equal(y[0], y[1], sizeof y[0]);
        assert_memory_equal(y[1], y[2], sizeof y[0]);
    }
    convt3d_plan_free(plan);
}

/* With a decimal comma, where the system has such a locale, all texts are what
 * they were; and no call changes the locale. */
static void locale_is_unchanged_and_without_effect(void **state) {
    (void)state;
    static const char *const names[] = {"de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "nl_NL.UTF-8",
                                        "C.UTF-8"};
    char texts[2][4096], before[256];
    for (int turn = 0; turn < 2; turn++) {
        for (size_t i = 0; turn && i < 5; i++)
            if (setlocale(LC_ALL, names[i])) break;
        snprintf(before, sizeof before, "%s", setlocale(LC_ALL, NULL));
        convt3d_problem p;
        convt3d_plan *plan;
        assert_int_equal(convt3d_problem_parse("n2ci16co33i5x6x70k3x5x2s2p1", &p, NULL, 0, NULL),
                         CONVT3D_OK);
        assert_int_equal(convt3d_plan_create(&p, CONVT3D_FORWARD, NULL, &plan, NULL), CONVT3D_OK);
        convt3d_plan_describe(plan, texts[turn], sizeof texts[turn]);
        convt3d_plan_free(plan);
        assert_string_equal(setlocale(LC_ALL, NULL), before);
    }
    setlocale(LC_ALL, "C");
    assert_string_equal(texts[0], texts[1]);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nan_and_inf_reach_their_outputs_only),
        cmocka_unit_test(inf_times_nothing),
        cmocka_unit_test(subnormals_are_exact),
        cmocka_unit_test(overflow_gives_inf_of_its_sign),
        cmocka_unit_test(zeros_of_both_signs),
        cmocka_unit_test(floating_point_control_is_unchanged),
        cmocka_unit_test(rounding_reaches_all_threads),
        cmocka_unit_test(locale_is_unchanged_and_without_effect),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("numbers", tests, NULL, NULL);
}
