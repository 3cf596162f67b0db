/* test_large: numbers beyond 16, 31 and 32 bits, on memory that is mostly never
 * touched: huge strides and dilations, offsets, counts, and bounded scratch.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "material.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <cmocka.h>

static const char *const algorithms[] = {"reference", "engine"};

static convt3d_problem problem(const char *text) {
    convt3d_problem p;
    convt3d_error err;
    if (convt3d_problem_parse(text, &p, NULL, 0, &err)) fail_msg("%s: %s", text, err.text);
    return p;
}

static void must_run(const layer *l, const char *algorithm, int with_bias) {
    convt3d_options o;
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_options_init(&o);
    o.algorithm = algorithm;
    o.threads = 2;
    if (convt3d_plan_create(&l->p, l->direction, &o, &plan, &err) ||
        layer_run(l, plan, NULL, with_bias, CONVT3D_OVERWRITE, NULL, &err))
        fail_msg("%s, %s: %s", problem_text(&l->p), algorithm, err.text);
    convt3d_plan_free(plan);
}

/* ---- Legal, though the numbers look mad --------------------------------- */

static void huge_arguments_that_are_legal(void **state) {
    (void)state;
    static const char *const texts[] = {
        "n2ci2co3i1k3s1099511627776",            /* one input: its stride is never taken */
        "n2ci2co3i3k1d4611686018427387904",      /* one tap: its dilation neither */
        "n1ci2co2i1x1x2k1x1x2s1x1x65536",        /* a stride that 16 bits lose */
        "n1ci2co1i1x1x2k1x1x3d1x1x65536op0x0x3", /* a dilation likewise */
        "n1ci1co2i2x1x1k3x1x1s65537x1x1p1x0x0",
        "n1ci1co1i2x3x3k3x2x2s70000x1x1d2x1x1p0mreplicate",
        "n1ci1co1i1k1s9223372036854775807d9223372036854775807",
    };
    rng r = {11};
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++)
        for (int d = 0; d < 3; d++)
            for (int a = 0; a < 2; a++) {
                convt3d_problem p = problem(texts[t]);
                layer l = layer_make(&r, &p, (convt3d_direction)d, LAYER_DENSE);
                real *expected[4];
                for (int role = 0; role < 4; role++) {
                    int64_t count = oracle_count(&p, (oracle_role)role);
                    expected[role] = calloc((size_t)count + 1, sizeof(real));
                    for (int64_t i = 0; i < count; i++)
                        expected[role][i] = l.value[role][i] = (real)rng_between(&r, -9, 9);
                    if (layer_known((convt3d_direction)d, (oracle_role)role))
                        layer_store(&l, (oracle_role)role);
                }
                oracle_run(&p, (convt3d_direction)d, expected);
                must_run(&l, algorithms[a], 1);
                for (int role = 0; role < 4; role++) {
                    if (layer_unknown((convt3d_direction)d, (oracle_role)role)) {
                        material_load(&l.tensor[role], l.value[role]);
                        for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
                            if (l.value[role][i] != expected[role][i])
                                fail_msg("%s, %s, %s: element %lld", texts[t], algorithms[a],
                                         convt3d_direction_name((convt3d_direction)d),
                                         (long long)i);
                    }
                    free(expected[role]);
                }
                layer_free(&l);
            }
}

/* ---- Offsets beyond 2^32 elements --------------------------------------- */

/* Address space without memory: pages come only where they are touched. */
static guarded reserve(size_t bytes) {
    guarded g = {NULL, bytes, NULL, bytes};
    g.map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                 -1, 0);
    assert_true(g.map != MAP_FAILED);
    g.data = g.map;
    return g;
}

/* Every tensor in turn with strides that carry its last element past 2^32
 * elements, forwards and backwards: against the same layer on dense memory. */
static void far_apart_elements(void **state) {
    (void)state;
    rng r = {12};
    convt3d_problem p = problem("n2ci3co2i2x3x4k2s2p1x0x1");
    for (int d = 0; d < 3; d++)
        for (int far = 0; far < 3; far++)
            for (int turn = 0; turn < 4; turn++) {
                layer l[2];
                for (int k = 0; k < 2; k++)
                    l[k] = layer_make(&r, &p, (convt3d_direction)d, LAYER_DENSE);
                material *m = &l[1].tensor[far];
                int axis = (int)rng_between(&r, 0, 4);
                int64_t stride = ((int64_t)5 << 30) + 7, size = m->tensor.size[axis];
                guarded old = m->memory;
                m->memory = reserve((size_t)((size - 1) * stride + 200) * 4);
                m->tensor.stride[axis] = turn % 2 ? stride : -stride;
                m->tensor.data =
                    m->memory.data + (turn % 2 ? 0 : (size_t)((size - 1) * stride) * 4);
                for (int role = 0; role < 4; role++) {
                    if (!layer_known((convt3d_direction)d, (oracle_role)role)) continue;
                    for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
                        l[0].value[role][i] = l[1].value[role][i] = (real)rng_between(&r, -9, 9);
                    layer_store(&l[0], (oracle_role)role);
                    layer_store(&l[1], (oracle_role)role);
                }
                for (int k = 0; k < 2; k++) must_run(&l[k], algorithms[turn / 2], 0);
                for (int role = 0; role < 3; role++) {
                    if (!layer_unknown((convt3d_direction)d, (oracle_role)role)) continue;
                    int64_t n = oracle_count(&p, (oracle_role)role);
                    for (int k = 0; k < 2; k++) material_load(&l[k].tensor[role], l[k].value[role]);
                    for (int64_t i = 0; i < n; i++)
                        assert_true(l[0].value[role][i] == l[1].value[role][i]);
                }
                guarded_free(&old);
                for (int k = 0; k < 2; k++) layer_free(&l[k]);
            }
}

/* An output gradient of 2^32 + 1 elements, of which 65 meet an input: 16 GiB of
 * address space, 65 pages. */
static void more_than_32_bits_of_elements(void **state) {
    (void)state;
    convt3d_problem p = problem("n1ci1co1i1x1x65k1s1x1x67108864nb"),
                    small = problem("ci1co1i1x1x65k1");
    rng r = {13};
    for (int d = 1; d < 3; d++)
        for (int a = 0; a < 2; a++) {
            layer l = layer_make(&r, &small, (convt3d_direction)d, LAYER_DENSE);
            int64_t shape[5];
            oracle_shape(&p, ORACLE_OUTPUT, shape);
            assert_true(shape[4] == ((int64_t)1 << 32) + 1);
            guarded dy = reserve((size_t)shape[4] * 4), old = l.tensor[ORACLE_OUTPUT].memory;
            l.tensor[ORACLE_OUTPUT].tensor =
                convt3d_tensor_dense(dy.data, CONVT3D_FLOAT32, 5, shape);
            l.tensor[ORACLE_OUTPUT].memory = dy;
            for (int i = 0; i < 65; i++) {
                ((float *)dy.data)[(int64_t)i << 26] = (float)(i + 1);
                l.value[ORACLE_INPUT][i] = i % 3;
            }
            l.value[ORACLE_WEIGHT][0] = 2;
            if (d == 1) layer_store(&l, ORACLE_WEIGHT);
            if (d == 2) layer_store(&l, ORACLE_INPUT);
            l.p = p;
            must_run(&l, algorithms[a], 0);
            l.p = small;
            real want = 0;
            for (int i = 0; i < 65; i++) {
                want += (real)(i % 3 * (i + 1));
                if (d == 1)
                    assert_true(((float *)l.tensor[ORACLE_INPUT].tensor.data)[i] == 2 * i + 2);
            }
            if (d == 2) assert_true(*(float *)l.tensor[ORACLE_WEIGHT].tensor.data == (float)want);
            guarded_free(&old);
            layer_free(&l);
        }
}

/* Sums over more than 2^31 elements: one number, seen so many times. */
static void sums_over_more_than_31_bits(void **state) {
    (void)state;
    convt3d_problem p = problem("n1ci1co1i1x46341x46342k1f64");
    int64_t shape[5];
    double one = 1, sum = -1;
    oracle_shape(&p, ORACLE_OUTPUT, shape);
    convt3d_tensor dy = convt3d_tensor_dense(&one, CONVT3D_FLOAT64, 5, shape), db;
    memset(dy.stride, 0, sizeof dy.stride);
    db = convt3d_tensor_dense(&sum, CONVT3D_FLOAT64, 1, (int64_t[]){1});
    convt3d_plan *plan;
    assert_int_equal(convt3d_plan_create(&p, CONVT3D_BACKWARD_WEIGHT, NULL, &plan, NULL), 0);
    assert_int_equal(
        convt3d_backward_weight(plan, NULL, &dy, NULL, &db, CONVT3D_OVERWRITE, NULL, NULL),
        CONVT3D_OK);
    assert_true(sum == 46341.0 * 46342.0 && sum > 0x1p31);
    convt3d_plan_free(plan);
}

/* ---- Scratch ------------------------------------------------------------ */

/* Layers whose classic columns buffer takes gigabytes: scratch on two threads
 * is a small part of that, and of what the tensors take. */
static void scratch_is_bounded(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t most; /* MiB */
    } rows[] = {
        {"n1ci1co68i16k23", 64}, /* columns: 13.6 GB */
        {"n20ci16co33i10x50x100k3s2", 64},
        {"n1ci64co32i64k2s2", 64},
        {"n1ci32co1i96x128x256k3s2p1op1nb", 128},
        {"n1ci16co16i512k3s2p1op1", 256}, /* tensors of 8 and 68 GB */
        {"n4096ci3co3i64k3p1", 64},       /* batches don't count */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int d = 0; d < 3; d++) {
            convt3d_problem p = problem(rows[i].text);
            convt3d_plan *plan;
            convt3d_options o;
            convt3d_error err;
            convt3d_options_init(&o);
            o.threads = 2;
            if (convt3d_plan_create(&p, (convt3d_direction)d, &o, &plan, &err))
                fail_msg("%s: %s", rows[i].text, err.text);
            size_t bytes = convt3d_plan_scratch_size(plan, 0, 1);
            if (bytes > rows[i].most << 20)
                fail_msg("%s, %s: %zu bytes of scratch", rows[i].text,
                         convt3d_direction_name((convt3d_direction)d), bytes);
            assert_true(convt3d_plan_scratch_size(plan, 1, 1) < bytes); /* a thread less */
            assert_true(convt3d_plan_scratch_size(plan, 0, 0) >= bytes);
            convt3d_plan_free(plan);
        }
}

/* What a border folds away costs only what meets in it: 2^40 positions of this
 * one hold two values. */
static void wide_borders_are_not_walked(void **state) {
    (void)state;
    convt3d_problem p;
    convt3d_error err;
    if (convt3d_problem_parse("ci1co1i2x1x1k1s1099511627776x1x1p549755813888x549755813888x0x0x0x0"
                              "mreplicatenb",
                              &p, NULL, 0, &err))
        fail_msg("%s", err.text);
    for (int which = 0; which < 2; which++) {
        const int64_t in[5] = {1, 1, 2, 1, 1}, one[5] = {1, 1, 1, 1, 1};
        float x[2] = {3, 5}, w = 7, y = 0;
        convt3d_options o;
        convt3d_plan *plan;
        convt3d_options_init(&o);
        o.algorithm = which ? "reference" : "engine";
        if (convt3d_plan_create(&p, CONVT3D_FORWARD, &o, &plan, &err)) fail_msg("%s", err.text);
        convt3d_tensor X = convt3d_tensor_dense(x, CONVT3D_FLOAT32, 5, in);
        convt3d_tensor W = convt3d_tensor_dense(&w, CONVT3D_FLOAT32, 5, one);
        convt3d_tensor Y = convt3d_tensor_dense(&y, CONVT3D_FLOAT32, 5, one);
        if (convt3d_forward(plan, &X, &W, NULL, NULL, &Y, NULL, &err)) fail_msg("%s", err.text);
        assert_true(y == 7 * (3 + 5));
        convt3d_plan_free(plan);
    }
}

/* Sizes of rows and scratch near 2^63: the plan is refused or right, and the
 * undefined-behaviour sanitizer sees every sum on the way. */
static void sizes_near_the_end_of_64_bits(void **state) {
    (void)state;
    static const char *const texts[] = {
        "ci1co1i1k1x2x1d1x9223372036854775806x1p0x0x4611686018427387904x4611686018427387902x0x0"
        "mreplicate",
        "ci1co1i1k2d1x1x9223372036854775806p0x0x0x0x4611686018427387904x4611686018427387902"
        "mreplicate",
        "ci1co1i1k2d1x1x9223372036854775806p0x0x0x0x4611686018427387904x4611686018427387902",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        convt3d_problem p;
        convt3d_error err;
        if (convt3d_problem_parse(texts[i], &p, NULL, 0, &err)) fail_msg("%s", err.text);
        for (int d = 0; d < 3; d++) {
            convt3d_plan *plan;
            convt3d_status status =
                convt3d_plan_create(&p, (convt3d_direction)d, NULL, &plan, &err);
            if (status && status != CONVT3D_OVERFLOW) fail_msg("%s: %s", texts[i], err.text);
            convt3d_plan_free(plan);
        }
    }
}

/* A plan's work rises with the taps, not with their square: that would take
 * minutes here. */
static void wide_kernels_are_planned_at_once(void **state) {
    (void)state;
    convt3d_problem p;
    convt3d_error err;
    if (convt3d_problem_parse("ci1co1i3k1x1x300000s1x1x300000", &p, NULL, 0, &err))
        fail_msg("%s", err.text);
    for (int d = 0; d < 3; d++) {
        convt3d_plan *plan;
        clock_t start = clock();
        if (convt3d_plan_create(&p, (convt3d_direction)d, NULL, &plan, &err))
            fail_msg("%s", err.text);
        assert_true((double)(clock() - start) / CLOCKS_PER_SEC < 10);
        convt3d_plan_free(plan);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(huge_arguments_that_are_legal),
        cmocka_unit_test(far_apart_elements),
        cmocka_unit_test(more_than_32_bits_of_elements),
        cmocka_unit_test(sums_over_more_than_31_bits),
        cmocka_unit_test(scratch_is_bounded),
        cmocka_unit_test(wide_borders_are_not_walked),
        cmocka_unit_test(sizes_near_the_end_of_64_bits),
        cmocka_unit_test(wide_kernels_are_planned_at_once),
    };
    return cmocka_run_group_tests_name("large", tests, NULL, NULL);
}
