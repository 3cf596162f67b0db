/* test_term_ranges: float32 by products of bfloat16 terms: numbers that terms can't hold, the
 * CPU's state, options, packed weights.
 * SPDX-License-Identifier: MIT */
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

/* ---- Ranges ---- */

/* Whether source row 'source' has a share in result row 'result', on one axis. */
static int reaches(const terms_work *w, int a, int64_t source, int64_t result) {
    const convt3d_problem *p = &w->p;
    const int64_t in = w->direction == CONVT3D_FORWARD ? source : result;
    const int64_t out = w->direction == CONVT3D_FORWARD ? result : source;
    for (int64_t k = 0; k < p->kernel_size[a]; k++) {
        if (in * p->stride[a] + k * p->dilation[a] - p->padding_before[a] == out) return 1;
    }
    return 0;
}

/* Rows that the source row at (sample, d, h) reaches must be what a plan without terms makes of
 * the new data; all others what they were. */
static void check_rows(const terms_work *w, const float *before, const float *after,
                       const float *plain, const int64_t at[3]) {
    int64_t shape[5];
    const int64_t count = terms_shape(&w->p, terms_result(w->direction), shape);
    for (int64_t i = 0; i < count; i++) {
        const int64_t h = i / shape[4] % shape[3], d = i / shape[4] / shape[3] % shape[2];
        const int64_t n = i / shape[4] / shape[3] / shape[2] / shape[1];
        const int reached = n == at[0] && reaches(w, 0, at[1], d) && reaches(w, 1, at[2], h);
        const float *expected = reached ? &plain[i] : &before[i];
        if (memcmp(expected, &after[i], sizeof *after) == 0) continue;
        if (isnan(*expected) && isnan(after[i])) continue;
        print_error("%s %s: element %lld, which is %sreached, is %.9g, but must be %.9g\n",
                    problem_text(&w->p), convt3d_direction_name(w->direction), (long long)i,
                    reached ? "" : "not ", (double)after[i], (double)*expected);
        fail_msg("a number out of range");
    }
}

static void numbers_out_of_range(void **state) {
    static const float odd[] = {NAN, INFINITY, 0x1p-130f, 0x1p-104f, 0x1p115f, 0x1.fffffep127f};
    static const char *const texts[] = {"n2ci64co64i5x6x9k3s2p1op1", "n2ci64co64i3x5x70k3",
                                        "n9ci64co32i4k4s2p1", "ci40co64i4k2s2"};
    rng r = {seed + 7};
    (void)state;
    for (int i = 0; i < terms_cases(8); i++) {
        terms_work w =
            terms_make(&r, texts[i / 2], (convt3d_direction)(i % 2), terms_normal, terms_normal);
        int64_t shape[5];
        const int64_t n = terms_shape(&w.p, terms_source(w.direction), shape);
        float *before = terms_compute(&w, NULL);
        for (int j = 0; j < 6; j++) {
            const int64_t place = rng_between(&r, 0, n - 1), h = place / shape[4] % shape[3];
            const int64_t d = place / shape[4] / shape[3] % shape[2];
            const int64_t at[3] = {place / shape[4] / shape[3] / shape[2] / shape[1], d, h};
            const float old = w.source[place];
            w.source[place] = odd[j];
            float *after = terms_compute(&w, NULL);
            w.isa = terms_plain_isa();
            float *plain = terms_compute(&w, NULL);
            w.isa = NULL;
            check_rows(&w, before, after, plain, at);
            w.source[place] = old;
            free(plain);
            free(after);
        }
        free(before);
        terms_free(&w);
    }
}

/* The gradient of the weights is summed up block by block of rows, which terms can hold or
 * can't: Inf and NaN reach what the reference says, and what is too large isn't lost. */
static void gradients_out_of_range(void **state) {
    rng r = {seed + 12};
    (void)state;
    for (int i = 0; i < terms_cases(6); i++) {
        terms_work w = terms_make(&r, "n2ci64co64i4x6x32k3s2p1op1", CONVT3D_BACKWARD_WEIGHT,
                                  terms_small_integer, terms_small_integer);
        const int64_t n = oracle_count(&w.p, ORACLE_OUTPUT), m = oracle_count(&w.p, ORACLE_INPUT);
        if (i < 2) w.source[rng_between(&r, 0, n - 1)] = i ? INFINITY : NAN;
        if (i == 2) w.weight[rng_between(&r, 0, m - 1)] = NAN;
        for (int64_t j = 0; j < n && i > 3; j++) w.source[j] *= 0x1p111f;
        for (int64_t j = 0; j < m && i > 4; j++) w.weight[j] *= 0x1p-3f;
        w.precision = CONVT3D_PRECISION_MEDIUM;
        float *found = terms_compute(&w, NULL);
        w.algorithm = "reference";
        float *expected = terms_compute(&w, NULL);
        for (int64_t j = 0; j < oracle_count(&w.p, ORACLE_WEIGHT); j++) {
            if (isnan(expected[j]) && isnan(found[j])) found[j] = expected[j];
            if (found[j] == 0 && expected[j] == 0) found[j] = expected[j]; /* -0 */
        }
        terms_same(&w, found, expected, "not the reference's value");
        free(expected);
        free(found);
        terms_free(&w);
    }
}

/* One such weight, and there are no terms at all. */
static void weights_out_of_range(void **state) {
    static const float odd[] = {NAN, 0x1p-130f, 0x1p115f};
    rng r = {seed + 8};
    (void)state;
    for (int i = 0; i < terms_cases(6); i++) {
        terms_work w = terms_make(&r, "ci64co64i3x5x9k3s2p1op1", (convt3d_direction)(i % 2),
                                  terms_normal, terms_normal);
        w.weight[rng_between(&r, 0, oracle_count(&w.p, ORACLE_WEIGHT) - 1)] = odd[i / 2];
        float *found = terms_compute(&w, NULL);
        w.isa = terms_plain_isa();
        float *plain = terms_compute(&w, NULL);
        for (int64_t j = 0; j < oracle_count(&w.p, terms_result(w.direction)); j++)
            if (isnan(plain[j]) && isnan(found[j])) found[j] = plain[j];
        terms_same(&w, found, plain, "a weight out of range");
        free(plain);
        free(found);
        terms_free(&w);
    }
}

/* Tiles round to nearest whatever the caller wants. */
static void other_roundings(void **state) {
    rng r = {seed + 9};
    terms_work w = terms_make(&r, "ci64co64i3x5x40k3", CONVT3D_FORWARD, terms_normal, terms_normal);
    (void)state;
    float *nearest = terms_compute(&w, NULL);
    fesetround(FE_UPWARD);
    float *up = terms_compute(&w, NULL);
    w.isa = terms_plain_isa();
    float *plain = terms_compute(&w, NULL);
    fesetround(FE_TONEAREST);
    terms_same(&w, up, plain, "upward");
    assert_true(memcmp(up, nearest, sizeof(float) * 1000) != 0);
    free(plain);
    free(up);
    free(nearest);
    terms_free(&w);
}

/* ---- The CPU's state, options, packed weights ---- */

#if defined(__x86_64__)
typedef struct tile_configuration {
    unsigned char bytes[64];
} tile_configuration;

static tile_configuration stored(void) {
    tile_configuration c;
    __asm__ volatile("sttilecfg %0" : "=m"(c));
    return c;
}

/* A host that computes with tiles itself. */
static void a_hosts_tiles(void **state) {
    rng r = {seed + 10};
    terms_work w = terms_make(&r, "ci64co64i3x5x40k3", CONVT3D_FORWARD, terms_normal, terms_normal);
    tile_configuration own = {{0}}, none = {{0}}, after;
    (void)state;
    free(terms_compute(&w, NULL)); /* asks for permission */
    if (terms_there()) {
        after = stored();
        assert_memory_equal(&after, &none, sizeof none);
        own.bytes[0] = 1;   /* palette */
        own.bytes[16] = 48; /* bytes of a row, */
        own.bytes[48] = 7;  /* and rows of tile 0 */
        __asm__ volatile("ldtilecfg %0" : : "m"(own));
        w.threads = 1;
        free(terms_compute(&w, NULL));
        after = stored();
        __asm__ volatile("tilerelease");
        assert_memory_equal(&after, &own, sizeof own);
    }
    terms_free(&w);
}
#endif

static void options(void **state) {
    convt3d_problem p = terms_problem("ci64co64i4k3");
    convt3d_options o;
    convt3d_plan *plan = NULL;
    convt3d_error err;
    convt3d_precision precision;
    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *name = convt3d_precision_name((convt3d_precision)i);
        assert_int_equal(convt3d_precision_parse(name, &precision, &err), CONVT3D_OK);
        assert_int_equal(precision, i);
    }
    assert_null(convt3d_precision_name((convt3d_precision)3));
    assert_int_equal(convt3d_precision_parse("low", &precision, &err), CONVT3D_ARG);
    assert_string_equal(err.text, "precision is 'low', but must be 'highest', 'high' or 'medium'");
    assert_int_equal(convt3d_precision_parse(NULL, &precision, &err), CONVT3D_ARG);
    convt3d_options_init(&o);
    assert_int_equal(o.precision, CONVT3D_PRECISION_HIGHEST);
    o.precision = (convt3d_precision)7;
    assert_int_equal(convt3d_plan_create(&p, CONVT3D_FORWARD, &o, &plan, &err), CONVT3D_ARG);
    assert_string_equal(err.text, "options.precision is 7, but must be 0 to 2 (convt3d_precision)");
    assert_null(plan);
    /* As a program knows the options that was made before there was a precision. */
    o.struct_size = offsetof(convt3d_options, precision);
    assert_int_equal(convt3d_plan_create(&p, CONVT3D_FORWARD, &o, &plan, &err), CONVT3D_OK);
    convt3d_plan_free(plan);
}

/* An output by weights that 'make' packs. */
static float *by_packed(const terms_work *w, const convt3d_plan *make, const convt3d_plan *use,
                        convt3d_weights **packed) {
    convt3d_error err;
    float *found = malloc((size_t)oracle_count(&w->p, ORACLE_OUTPUT) * sizeof *found);
    convt3d_tensor weight = terms_tensor(&w->p, ORACLE_WEIGHT, w->weight, 0);
    convt3d_tensor x = terms_tensor(&w->p, ORACLE_INPUT, w->source, 0);
    convt3d_tensor y = terms_tensor(&w->p, ORACLE_OUTPUT, found, 0);
    assert_int_equal(convt3d_weights_pack(make, &weight, packed, &err), CONVT3D_OK);
    assert_int_equal(convt3d_forward(use, &x, NULL, *packed, NULL, &y, NULL, &err), CONVT3D_OK);
    return found;
}

/* Weights that were packed for a size that takes no terms serve one that does, and the other
 * way round; those of another precision are refused. */
static void packed_weights(void **state) {
    rng r = {seed + 11};
    terms_work w = terms_make(&r, "ci320co320i4x4x16k2s2", CONVT3D_FORWARD, terms_normal,
                              terms_normal),
               tiny = w;
    convt3d_weights *packed;
    convt3d_error err;
    (void)state;
    for (int a = 0; a < 3; a++) tiny.p.input_size[a] = 1;
    for (int i = 0; i < 2; i++) {
        const terms_work *from = i ? &tiny : &w, *to = i ? &w : &tiny;
        convt3d_plan *make = terms_plan(from), *use = terms_plan(to);
        float *expected = by_packed(to, use, use, &packed);
        convt3d_weights_free(packed);
        float *found = by_packed(to, make, use, &packed);
        terms_same(to, found, expected, "by weights packed elsewhere");
        convt3d_plan_free(use);
        terms_work other = *to;
        other.precision = CONVT3D_PRECISION_MEDIUM;
        use = terms_plan(&other);
        convt3d_tensor x = terms_tensor(&to->p, ORACLE_INPUT, to->source, 0);
        convt3d_tensor y = terms_tensor(&to->p, ORACLE_OUTPUT, found, 0);
        assert_int_equal(convt3d_forward(use, &x, NULL, packed, NULL, &y, NULL, &err), CONVT3D_ARG);
        assert_non_null(strstr(err.text, "precision highest"));
        convt3d_weights_free(packed);
        convt3d_plan_free(use);
        convt3d_plan_free(make);
        free(found);
        free(expected);
    }
    terms_free(&w);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_out_of_range),
        cmocka_unit_test(gradients_out_of_range),
        cmocka_unit_test(weights_out_of_range),
        cmocka_unit_test(other_roundings),
#if defined(__x86_64__)
        cmocka_unit_test(a_hosts_tiles),
#endif
        cmocka_unit_test(options),
        cmocka_unit_test(packed_weights),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
