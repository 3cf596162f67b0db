/* test_matrix: small layers whose taps never overlap, whose weights are read where they are.
 * SPDX-License-Identifier: MIT
 *
 * test_layer has some of these layers among its own: with packed weights, scratch of the
 * caller's and results that are added. */
#include "judge.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;

/* Every size next to a vector's, tiles' and blocks'; groups, kernels of unequal axes, blocks of
 * samples, chains of more than 512 products. */
static const char *const texts[] = {
    "ci320co24i4k2s2",       "n3ci17co5i2x3x5k2s2",     "n2ci32co64g2i3x4x5k2x1x3s2x1x3",
    "ci16co70i1x1x9k1",      "n2ci19co80i3x1x7k1f64",   "n40ci20co3i2x2x3k4s4nbf64",
    "n2ci24co9i7x9x9k2s2",   "n9ci16co8i8k2s2",         "ci16co2i16x8x9k1x2x8s1x2x8",
    "n700ci16co8i1x2x1k2s2", "n2ci16co40i9x9x13k1s1nb", "ci300co300i1k1",
    "ci33co33i2x2x4k3s3f64",
};
enum {
    TEXTS = sizeof texts / sizeof *texts
};

/* Sanitizers, which are slow, take some. */
static int is_left_out(int text) {
    return test_count(100) < 100 && text % 4 != 1;
}

static layer make(rng *r, const char *text, convt3d_direction d, int flags) {
    convt3d_problem p;
    assert_int_equal(convt3d_problem_parse(text, &p, NULL, 0, NULL), CONVT3D_OK);
    return layer_make(r, &p, d, flags);
}

typedef real number(rng *r);

static real small_integer(rng *r) {
    return (real)rng_between(r, -4, 4);
}

static real normal(rng *r) {
    return (real)(float)rng_normal(r);
}

static void fill(rng *r, layer *l, number *next) {
    for (int role = 0; role < 4; role++)
        for (int64_t i = 0; i < oracle_count(&l->p, (oracle_role)role); i++)
            l->value[role][i] = next(r);
}

static void judge_same(const layer *l, real *const expected[4], const char *who, void *arg) {
    int64_t *compared = arg;
    for (int role = 0; role < 4; role++) {
        if (!layer_unknown(l->direction, (oracle_role)role)) continue;
        for (int64_t i = 0; i < oracle_count(&l->p, (oracle_role)role); i++, ++*compared) {
            const real want = expected[role][i], got = l->value[role][i];
            if (isnan(want) ? isnan(got) : got == want) continue;
            print_error("role %d, element %lld: %Lg, but the oracle says %Lg\n", role, (long long)i,
                        got, want);
            judge_wrong(l, who, "another number");
        }
    }
}

static void integers_are_exact(void **state) {
    (void)state;
    rng r = {seed + 1};
    int64_t compared = 0;
    for (int i = 0; i < 4 * TEXTS; i++) {
        if (is_left_out(i / 4)) continue;
        for (int d = 0; d < 3; d++) {
            layer l = make(&r, texts[i / 4], (convt3d_direction)d, i % 4 ? 0 : LAYER_DENSE);
            fill(&r, &l, small_integer);
            judge_all(&l, d == 2 || i % 3, judge_same, &compared);
            layer_free(&l);
        }
    }
    assert_true(compared > 10000);
}

/* NaN and Inf reach what their taps meet, and nothing beside it. */
static void special_values(void **state) {
    (void)state;
    rng r = {seed + 2};
    int64_t compared = 0;
    for (int i = 0; i < TEXTS; i++) {
        for (int d = 0; d < 3 && !is_left_out(i); d++) {
            layer l = make(&r, texts[i], (convt3d_direction)d, LAYER_DENSE);
            const oracle_role one = d == 1 ? ORACLE_OUTPUT : ORACLE_INPUT;
            const oracle_role other = d == 2 ? ORACLE_OUTPUT : ORACLE_WEIGHT;
            fill(&r, &l, small_integer);
            l.value[one][rng_between(&r, 0, oracle_count(&l.p, one) - 1)] = NAN;
            l.value[other][rng_between(&r, 0, oracle_count(&l.p, other) - 1)] = INFINITY;
            judge_all(&l, d == 2, judge_same, &compared);
            layer_free(&l);
        }
    }
    assert_true(compared > 1000);
}

/* By role of the unknown: 'products' of a chain, at most, of L.  See docs/numerics.md. */
static void judge_bound(const layer *l, real *const expected[4], const char *who, void *arg) {
    const oracle_role role = l->direction == CONVT3D_FORWARD          ? ORACLE_OUTPUT
                             : l->direction == CONVT3D_BACKWARD_INPUT ? ORACLE_INPUT
                                                                      : ORACLE_WEIGHT;
    real *sums[4], *const *magnitude = arg;
    const int64_t taps = l->p.kernel_size[0] * l->p.kernel_size[1] * l->p.kernel_size[2];
    const int64_t positions =
        l->p.batch * l->p.input_size[0] * l->p.input_size[1] * l->p.input_size[2];
    const int64_t chain = l->direction == CONVT3D_FORWARD ? l->p.in_channels / l->p.groups
                          : l->direction == CONVT3D_BACKWARD_INPUT
                              ? l->p.out_channels / l->p.groups * taps
                          : positions < 512 ? positions
                                            : 512 + positions / 512 + l->p.batch;
    const real u = l->p.dtype == CONVT3D_FLOAT64 ? 0x1p-53L : 0x1p-24L;
    memcpy(sums, magnitude, sizeof sums);
    for (int64_t i = 0; i < oracle_count(&l->p, role); i++) {
        const real n = (real)(chain + 2), bound = n * u / (1 - n * u) * sums[role][i];
        if (!(fabsl(l->value[role][i] - expected[role][i]) <= bound)) {
            print_error("element %lld: %Lg, exactly %Lg, bound %Lg\n", (long long)i,
                        l->value[role][i], expected[role][i], bound);
            judge_wrong(l, who, "an error beyond the bound");
        }
    }
}

static void errors_within_bounds(void **state) {
    (void)state;
    rng r = {seed + 3};
    for (int i = 0; i < TEXTS; i++) {
        for (int d = 0; d < 3 && !is_left_out(i); d++) {
            real *magnitude[4];
            layer l = make(&r, texts[i], (convt3d_direction)d, LAYER_DENSE);
            fill(&r, &l, normal);
            for (int role = 0; role < 4; role++) {
                const int64_t count = oracle_count(&l.p, (oracle_role)role);
                magnitude[role] = malloc((size_t)(count + 1) * sizeof(real));
                for (int64_t j = 0; j < count; j++) magnitude[role][j] = fabsl(l.value[role][j]);
            }
            oracle_run(&l.p, (convt3d_direction)d, magnitude);
            judge_all(&l, 1, judge_bound, magnitude);
            for (int role = 0; role < 4; role++) free(magnitude[role]);
            layer_free(&l);
        }
    }
}

/* ---- The same bytes ------------------------------------------------------------------ */

static void compute(layer *l, const char *isa, int threads, convt3d_write write) {
    convt3d_options o;
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_options_init(&o);
    o.threads = threads;
    o.isa = isa;
    for (int role = 0; role < 4; role++)
        if (layer_known(l->direction, (oracle_role)role) || write == CONVT3D_ACCUMULATE)
            layer_store(l, (oracle_role)role);
    if (convt3d_plan_create(&l->p, l->direction, &o, &plan, &err) ||
        layer_run(l, plan, NULL, 1, write, NULL, &err))
        judge_wrong(l, isa, err.text);
    for (int role = 0; role < 4; role++)
        if (layer_unknown(l->direction, (oracle_role)role))
            material_load(&l->tensor[role], l->value[role]);
    convt3d_plan_free(plan);
}

static void copy_values(layer *to, const layer *from) {
    for (int role = 0; role < 4; role++)
        memcpy(to->value[role], from->value[role],
               (size_t)oracle_count(&to->p, (oracle_role)role) * sizeof(real));
}

static void assert_same(const layer *a, const layer *b, const char *isa, const char *what) {
    for (int role = 0; role < 4; role++)
        for (int64_t i = 0; i < oracle_count(&a->p, (oracle_role)role); i++)
            if (layer_unknown(a->direction, (oracle_role)role) &&
                !(a->value[role][i] == b->value[role][i]))
                judge_wrong(a, isa, what);
}

static int has_dense_rows(const convt3d_tensor *t) {
    return t->size[t->rank - 1] == 1 || t->stride[t->rank - 1] == 1;
}

/* For any number of threads and any strides but of rows, which go to another engine where they
 * aren't dense; added or not. */
static void bytes_are_the_same(void **state) {
    (void)state;
    rng r = {seed + 4};
    const char *isa;
    int compared = 0;
    for (int n = 0; n < TEXTS * 3; n++) {
        for (int k = 0; !is_left_out(n / 3) && (isa = convt3d_isa_name(k)); k++) {
            const convt3d_direction d = (convt3d_direction)(n % 3);
            const convt3d_write write =
                d && rng_chance(&r, 50) ? CONVT3D_ACCUMULATE : CONVT3D_OVERWRITE;
            if (!convt3d_isa_supported(isa)) continue;
            layer given = make(&r, texts[n / 3], d, LAYER_DENSE);
            layer first = make(&r, texts[n / 3], d, LAYER_DENSE);
            fill(&r, &given, normal);
            copy_values(&first, &given);
            compute(&first, isa, 1, write);
            for (int threads = 2; threads <= 4; threads++) {
                layer again = make(&r, texts[n / 3], d, threads == 2 ? LAYER_DENSE : 0);
                copy_values(&again, &given);
                compute(&again, isa, threads, write);
                /* Inputs that repeat themselves hold other numbers than they were given. */
                int same = 1;
                for (int role = 0; role < 4; role++)
                    same = same && (role == ORACLE_WEIGHT || role == ORACLE_BIAS ||
                                    has_dense_rows(&again.tensor[role].tensor));
                for (int role = 0; role < 4; role++)
                    for (int64_t i = 0; i < oracle_count(&given.p, (oracle_role)role); i++)
                        same = same && (!layer_known(d, (oracle_role)role) ||
                                        again.value[role][i] == first.value[role][i]);
                if (same) assert_same(&first, &again, isa, "other bytes");
                compared += same && threads > 2;
                layer_free(&again);
            }
            layer_free(&given);
            layer_free(&first);
        }
    }
    assert_true(compared > 5);
}

/* A sample's results are those that it has in any batch. */
static void batches_split(void **state) {
    (void)state;
    rng r = {seed + 5};
    const char *isa;
    for (int n = 0; n < TEXTS * 2; n++) {
        const convt3d_direction d = (convt3d_direction)(n % 2);
        const oracle_role source = d ? ORACLE_OUTPUT : ORACLE_INPUT;
        const oracle_role result = d ? ORACLE_INPUT : ORACLE_OUTPUT;
        for (int k = 0; !is_left_out(n / 2) && (isa = convt3d_isa_name(k)); k++) {
            if (!convt3d_isa_supported(isa)) continue;
            layer all = make(&r, texts[n / 2], d, LAYER_DENSE);
            fill(&r, &all, normal);
            compute(&all, isa, 2, CONVT3D_OVERWRITE);
            convt3d_problem p = all.p;
            p.batch = 1;
            layer one = layer_make(&r, &p, d, LAYER_DENSE);
            const int64_t sample = rng_between(&r, 0, all.p.batch - 1);
            const int64_t read = oracle_count(&p, source), written = oracle_count(&p, result);
            copy_values(&one, &all);
            memcpy(one.value[source], all.value[source] + sample * read,
                   (size_t)read * sizeof(real));
            compute(&one, isa, 2, CONVT3D_OVERWRITE);
            for (int64_t i = 0; i < written; i++)
                if (!(one.value[result][i] == all.value[result][sample * written + i]))
                    judge_wrong(&all, isa, "other bytes in a batch");
            layer_free(&one);
            layer_free(&all);
        }
    }
}

/* ---- Plans ------------------------------------------------------------------------------ */

static int reads_in_place(const char *text, int direction, convt3d_precision precision,
                          const char *algorithm) {
    char description[4096];
    convt3d_problem p;
    convt3d_options o;
    convt3d_plan *plan;
    assert_int_equal(convt3d_problem_parse(text, &p, NULL, 0, NULL), CONVT3D_OK);
    convt3d_options_init(&o);
    o.precision = precision;
    o.algorithm = algorithm;
    assert_int_equal(convt3d_plan_create(&p, (convt3d_direction)direction, &o, &plan, NULL),
                     CONVT3D_OK);
    convt3d_plan_describe(plan, description, sizeof description);
    convt3d_plan_free(plan);
    return strstr(description, "\nweights in place: ") != NULL;
}

static void plans_say_so(void **state) {
    (void)state;
    static const char *const others[] = {
        "ci32co32i4k3s2p1op1",
        "ci32co32i4k2s2p1",
        "ci32co32i4k2s2op1",
        "ci32co32i4k2s3",
        "ci32co32i4k2s2d2",
        "ci15co32i4k2s2",
        "ci64co64g64i4k2s2",
        "ci32co3i4k1",
        "ci32co32i17k2s2",
        "ci32co32i2x2x4k2x2x9s2x2x9",
        "ci32co32i4k2s2bf16",
        "n0ci32co32i4k2s2",
        "ci32co32i4k2s2p1x1x0x0x0x0mcircular",
    };
    for (int i = 0; i < TEXTS; i++) {
        /* Forward's limit of positions is another one with terms. */
        for (int d = 1; d < 3; d++)
            if (!strstr(texts[i], "i7x9x9") && !strstr(texts[i], "i16x8") &&
                !strstr(texts[i], "i9x9"))
                assert_true(reads_in_place(texts[i], d, CONVT3D_PRECISION_HIGHEST, NULL));
        assert_true(reads_in_place(texts[i], 2, CONVT3D_PRECISION_HIGHEST, "engine"));
        assert_false(reads_in_place(texts[i], i % 3, CONVT3D_PRECISION_HIGHEST, "reference"));
    }
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        for (int d = 0; d < 3; d++)
            assert_false(reads_in_place(others[i], d, CONVT3D_PRECISION_HIGHEST, NULL));
    assert_true(reads_in_place(texts[0], 0, CONVT3D_PRECISION_HIGHEST, NULL));
    assert_true(reads_in_place("ci32co32i4k2s2f64", 0, CONVT3D_PRECISION_MEDIUM, NULL));
}

/* In backward_weight for any value of 'packed_weights'. */
static void scratch_is_enough(void **state) {
    (void)state;
    rng r = {seed + 6};
    for (int i = 0; i < TEXTS; i++) {
        convt3d_plan *plan;
        convt3d_options o;
        convt3d_run run;
        convt3d_error err;
        layer l = make(&r, texts[i], CONVT3D_BACKWARD_WEIGHT, LAYER_DENSE);
        fill(&r, &l, small_integer);
        convt3d_options_init(&o);
        o.threads = 2;
        assert_int_equal(convt3d_plan_create(&l.p, l.direction, &o, &plan, &err), CONVT3D_OK);
        convt3d_run_init(&run);
        run.scratch_size = convt3d_plan_scratch_size(plan, 0, i % 2);
        guarded scratch = guarded_alloc(run.scratch_size, 1);
        run.scratch = scratch.data;
        assert_int_equal(layer_run(&l, plan, NULL, 1, CONVT3D_OVERWRITE, &run, &err), CONVT3D_OK);
        run.scratch_size--;
        assert_int_equal(layer_run(&l, plan, NULL, 1, CONVT3D_OVERWRITE, &run, &err), CONVT3D_ARG);
        guarded_free(&scratch);
        convt3d_plan_free(plan);
        layer_free(&l);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_exact),   cmocka_unit_test(special_values),
        cmocka_unit_test(errors_within_bounds), cmocka_unit_test(bytes_are_the_same),
        cmocka_unit_test(batches_split),        cmocka_unit_test(plans_say_so),
        cmocka_unit_test(scratch_is_enough),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
