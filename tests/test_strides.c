/* test_strides: forward and backward_input read and write any order of the axes
 * in memory, with gaps and backwards, and give the bytes that dense tensors give.
 * SPDX-License-Identifier: MIT */
#include "material.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;
static int64_t compared, runs;

/* ---- Tensors in any order -------------------------------------------------- */

enum {
    ORDERS = 120
};

/* The n-th order of the five axes, the closest in memory first. */
static void axis_order(int n, int order[5]) {
    int left[5] = {0, 1, 2, 3, 4};
    for (int i = 0; i < 5; i++) {
        int pick = n % (5 - i);
        n /= 5 - i;
        order[i] = left[pick];
        memmove(left + pick, left + pick + 1, (size_t)(4 - pick) * sizeof *left);
    }
}

typedef struct strided {
    guarded memory;
    convt3d_tensor tensor;
} strided;

static strided make(rng *r, convt3d_dtype dtype, const int64_t shape[5], int n, int gaps,
                    int backwards) {
    strided s = {.tensor = convt3d_tensor_dense(NULL, dtype, 5, shape)};
    int64_t step = 1, first = 0, last = 0, each = (int64_t)convt3d_dtype_size(dtype);
    int order[5];
    axis_order(n, order);
    for (int i = 0; i < 5; i++) {
        int64_t size = shape[order[i]], reach;
        if (gaps) step += rng_between(r, 0, 3);
        reach = (size - 1) * step;
        if (backwards && rng_chance(r, 50)) {
            s.tensor.stride[order[i]] = -step;
            first += reach;
        } else {
            s.tensor.stride[order[i]] = step;
        }
        last += reach;
        step = last + 1;
    }
    s.memory = guarded_alloc((size_t)((last + 1) * each), rng_chance(r, 50));
    s.tensor.data = s.memory.data + first * each;
    return s;
}

/* Copies between the tensor and dense bytes. */
static void copy(const convt3d_tensor *t, unsigned char *dense, int from_dense) {
    const size_t each = convt3d_dtype_size(t->dtype);
    int64_t count = t->size[0] * t->size[1] * t->size[2] * t->size[3] * t->size[4];
    for (int64_t i = 0; i < count; i++, dense += each) {
        int64_t rest = i, at = 0;
        for (int a = 4; a >= 0; a--) {
            at += rest % t->size[a] * t->stride[a];
            rest /= t->size[a];
        }
        unsigned char *p = (unsigned char *)t->data + at * (int64_t)each;
        memcpy(from_dense ? p : dense, from_dense ? dense : p, each);
    }
}

/* ---- One layer ---------------------------------------------------------------- */

typedef struct job {
    convt3d_problem p;
    convt3d_direction direction;
    convt3d_options options;
    convt3d_plan *plan;
    convt3d_weights *weights;
    const layer *dense; /* the tensors that the others are compared with */
    unsigned char *before;
    convt3d_write write;
} job;

static void wrong(const job *j, const char *what) {
    fail_msg("%s, %s, isa %s, %d threads, seed %llu: %s", problem_text(&j->p),
             convt3d_direction_name(j->direction), j->options.isa ? j->options.isa : "any",
             (int)j->options.threads, (unsigned long long)seed, what);
}

static void run(const job *j, const convt3d_tensor *from, const convt3d_tensor *to,
                const convt3d_run *how) {
    convt3d_error err = {CONVT3D_OK, ""};
    const convt3d_tensor *bias = j->p.bias ? &j->dense->tensor[ORACLE_BIAS].tensor : NULL;
    if (j->direction == CONVT3D_FORWARD)
        convt3d_forward(j->plan, from, NULL, j->weights, bias, to, how, &err);
    else
        convt3d_backward_input(j->plan, from, NULL, j->weights, to, j->write, how, &err);
    if (err.status) wrong(j, err.text);
}

/* One order of the axes for what is read, another for what is written. */
static void check_orders(rng *r, const job *j, int from_order, int to_order) {
    int forward = j->direction == CONVT3D_FORWARD;
    const convt3d_tensor *x = &j->dense->tensor[forward ? ORACLE_INPUT : ORACLE_OUTPUT].tensor;
    const convt3d_tensor *y = &j->dense->tensor[forward ? ORACLE_OUTPUT : ORACLE_INPUT].tensor;
    strided from = make(r, x->dtype, x->size, from_order, rng_chance(r, 40), rng_chance(r, 40));
    strided to = make(r, y->dtype, y->size, to_order, rng_chance(r, 40), rng_chance(r, 40));
    convt3d_run how;
    convt3d_run_init(&how);
    how.threads = (int32_t)rng_between(r, 1, j->options.threads);
    how.scratch_size = convt3d_plan_scratch_size(j->plan, how.threads, 1);
    guarded scratch = guarded_alloc(how.scratch_size, rng_chance(r, 70));
    how.scratch = scratch.data;
    copy(&from.tensor, x->data, 1);
    if (j->write == CONVT3D_ACCUMULATE) copy(&to.tensor, j->before, 1);
    run(j, &from.tensor, &to.tensor, &how);

    const size_t each = convt3d_dtype_size(y->dtype);
    const int64_t count = y->size[0] * y->stride[0]; /* dense */
    unsigned char *got = malloc((size_t)count * each);
    copy(&to.tensor, got, 0);
    if (memcmp(got, y->data, (size_t)count * each)) wrong(j, "not the bytes of dense tensors");
    memset(got, 0xFF, (size_t)count * each);
    copy(&to.tensor, got, 1);
    for (size_t i = 0; i < to.memory.size; i++)
        if (to.memory.data[i] != 0xFF) wrong(j, "wrote between the elements");
    compared += count;
    runs++;
    free(got);
    guarded_free(&scratch);
    guarded_free(&from.memory);
    guarded_free(&to.memory);
}

/* Integers are compared with the oracle, so that the dense bytes are known to be
 * right; other numbers show a different order of additions. */
static void fill(rng *r, layer *l, int integers) {
    for (int role = 0; role < 4; role++) {
        for (int64_t i = 0, n = oracle_count(&l->p, (oracle_role)role); i < n; i++)
            l->value[role][i] = integers ? (real)rng_between(r, -8, 8) : (real)rng_normal(r);
        layer_store(l, (oracle_role)role);
    }
}

static void dense_run(job *j, layer *l, int integers) {
    int unknown = j->direction == CONVT3D_FORWARD ? ORACLE_OUTPUT : ORACLE_INPUT;
    convt3d_tensor *y = &l->tensor[unknown].tensor;
    real *values[4];
    for (int role = 0; role < 4; role++) values[role] = l->value[role];
    if (!j->p.bias) values[ORACLE_BIAS] = NULL;
    copy(y, j->before, 0);
    run(j, &l->tensor[ORACLE_OUTPUT - unknown].tensor, y, NULL);
    if (!integers) return;
    int64_t count = oracle_count(&j->p, (oracle_role)unknown);
    real *got = malloc((size_t)count * sizeof *got), *before = malloc((size_t)count * sizeof *got);
    memcpy(before, l->value[unknown], (size_t)count * sizeof *got);
    oracle_run(&j->p, j->direction, values);
    material_load(&l->tensor[unknown], got);
    for (int64_t i = 0; i < count; i++) {
        const real old = j->write == CONVT3D_ACCUMULATE ? before[i] : 0;
        real want = layer_round(l, unknown, values[unknown][i] + old);
        if (got[i] != want) wrong(j, "not what the oracle says");
    }
    free(got);
    free(before);
}

/* Every order of what is written with some order of what is read, and the
 * other way round. */
static void check_layer(rng *r, const convt3d_problem *p, convt3d_direction direction,
                        const char *isa, int integers, int every) {
    layer l = layer_make(r, p, direction, LAYER_DENSE);
    job j = {.p = *p, .direction = direction, .dense = &l};
    convt3d_error err;
    int backward = direction == CONVT3D_BACKWARD_INPUT;
    fill(r, &l, integers);
    convt3d_options_init(&j.options);
    j.options.isa = isa;
    j.options.threads = (int32_t)rng_between(r, 1, 3);
    j.before = malloc((size_t)oracle_count(p, backward ? ORACLE_INPUT : ORACLE_OUTPUT) * 8);
    j.write = backward && rng_chance(r, 50) ? CONVT3D_ACCUMULATE : CONVT3D_OVERWRITE;
    if (convt3d_plan_create(p, direction, &j.options, &j.plan, &err)) wrong(&j, err.text);
    if (convt3d_weights_pack(j.plan, &l.tensor[ORACLE_WEIGHT].tensor, &j.weights, &err))
        wrong(&j, err.text);
    dense_run(&j, &l, integers);
    for (int n = 0; n < ORDERS; n += every) {
        check_orders(r, &j, (int)rng_between(r, 0, ORDERS - 1), n);
        check_orders(r, &j, n, (int)rng_between(r, 0, ORDERS - 1));
    }
    convt3d_weights_free(j.weights);
    convt3d_plan_free(j.plan);
    free(j.before);
    layer_free(&l);
}

static void check_isas(rng *r, const convt3d_problem *p, int integers) {
    const char *isa;
    for (int i = 0; (isa = convt3d_isa_name(i)); i++) {
        if (!convt3d_isa_supported(isa)) continue;
        check_layer(r, p, CONVT3D_FORWARD, isa, integers, test_count(100) < 100 ? 31 : 1);
        check_layer(r, p, CONVT3D_BACKWARD_INPUT, isa, integers, test_count(100) < 100 ? 31 : 1);
    }
}

/* ---- Tests ----------------------------------------------------------------------- */

/* Batches of less than a run, a run and several; blocks, pieces, phases that no
 * tap reaches, and folds of every kind. */
static void chosen_problems(void **state) {
    (void)state;
    static const char *const texts[] = {
        "n20ci3co13i2x5x9k3x5x2s2x1x1p0x4x2f64",
        "n33ci2co3i2x3x5k3s2p1op1",
        "n9ci2co5i2x3x4k4s2p1f64",
        "n41ci4co2i1x2x3k2s2nb",
        "n6ci3co4i2x3x20k3s3x2x1p1mreflect",
        "n7ci3co4i2x3x9k3x1x3s2p1x0x1mcircularf64",
        "n5ci2co3i2x3x8k3s1x2x2p1x2x3mreplicate",
        "n4ci8co6g2i3x3x17k3s2p1d2",
        "n17ci6co6g6i2x5x6k3s2p1nb",
        "n3ci2co3i2x2x7k1s3",
        "n19ci3co21i2x4x9k3x2x2s2x1x1p0x1x0bf16",
        "n3ci18co5i2x3x20k4s2p1nbf16",
        "n1ci17co70i2x3x18k3s2p1op1",
        "n1ci5co19i2x3x21k2s2f64",
        "n1ci70co9i3x2x5k4s2p1nb",
        "n2ci3co5i2x2x150k5s1x1x2p1x1x4",
    };
    rng r = {seed};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        convt3d_problem p;
        convt3d_error err;
        if (convt3d_problem_parse(texts[i], &p, NULL, 0, &err)) fail_msg("%s", err.text);
        check_isas(&r, &p, (int)i & 1);
    }
    assert_true(runs > 1000 && compared > 1000 * 1000);
}

/* Rows so long, of so many channels, that tasks of several samples take strips. */
static void rows_in_strips(void **state) {
    (void)state;
    static const struct {
        const char *text;
        convt3d_direction direction;
    } rows[] = {
        {"n20ci64co5i3x3x64k3s2p1op1f64", CONVT3D_FORWARD},
        {"n40ci64co2i3x3x70k2x2x1s1x1x3p0x0x2", CONVT3D_FORWARD},
        {"n20ci64co1i3x3x66k2x2x5s1x1x2p1x1x9d1x1x3f64", CONVT3D_FORWARD},
        {"n20ci1co64i2x2x70k3s2p1f64nb", CONVT3D_BACKWARD_INPUT},
        {"n40ci1co64i3x3x67k2x2x5s1x1x3p0x0x6d1x1x2nb", CONVT3D_BACKWARD_INPUT},
        {"n20ci1co64i3x3x70k3p1mcircularf64nb", CONVT3D_BACKWARD_INPUT},
    };
    rng r = {seed + 2};
    const size_t step = test_count(100) < 100 ? 5 : 1;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i += step) {
        convt3d_problem p;
        convt3d_error err;
        convt3d_plan *plan;
        char text[4096];
        if (convt3d_problem_parse(rows[i].text, &p, NULL, 0, &err)) fail_msg("%s", err.text);
        if (convt3d_plan_create(&p, rows[i].direction, NULL, &plan, &err)) fail_msg("%s", err.text);
        convt3d_plan_describe(plan, text, sizeof text);
        if (!strstr(text, "rows in ") || strstr(text, "rows in 1 "))
            fail_msg("no strips: %s", text);
        convt3d_plan_free(plan);
        /* These orders have the samples closest. */
        check_layer(&r, &p, rows[i].direction, NULL, (int)i & 1, 40);
    }
}

static void random_problems(void **state) {
    (void)state;
    rng r = {seed + 1};
    for (int i = 0; i < test_count(15); i++) {
        convt3d_problem p;
        do random_problem(&r, 10000, &p);
        while (p.batch == 0);
        p.batch = rng_chance(&r, 30) ? 1 : rng_between(&r, 2, 12);
        check_isas(&r, &p, i & 1);
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chosen_problems),
        cmocka_unit_test(rows_in_strips),
        cmocka_unit_test(random_problems),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("strides", tests, NULL, NULL);
}
