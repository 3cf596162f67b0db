/* test_module: what a module computes: the bytes of its plans' runs, gradients
 * that add up and are true derivatives, one progress over both runs.
 * SPDX-License-Identifier: MIT */
#include "golden.h"
#include "material.h"
#include "module.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static rng random_numbers = {1};

/* ---- A module with the tensors of one run ---------------------------------- */

typedef struct bench {
    convt3d_problem p;
    convt3d_module *module;
    convt3d_tensor x, y, dy, dx;
} bench;

static size_t count_of(const convt3d_tensor *t) {
    size_t count = 1;
    for (int i = 0; i < t->rank; i++) count *= (size_t)t->size[i];
    return count;
}

static size_t bytes_of(const convt3d_tensor *t) {
    return count_of(t) * (t->dtype == CONVT3D_FLOAT32 ? 4 : 8);
}

static double get(const convt3d_tensor *t, size_t i) {
    return t->dtype == CONVT3D_FLOAT32 ? (double)((float *)t->data)[i] : ((double *)t->data)[i];
}

static void set(const convt3d_tensor *t, size_t i, double value) {
    if (t->dtype == CONVT3D_FLOAT32)
        ((float *)t->data)[i] = (float)value;
    else
        ((double *)t->data)[i] = value;
}

/* Integers below 8: sums are exact. */
static void set_integers(const convt3d_tensor *t) {
    for (size_t i = 0; i < count_of(t); i++) set(t, i, (double)rng_between(&random_numbers, -7, 7));
}

static convt3d_tensor make_tensor(convt3d_dtype dtype, int rank, const int64_t *size) {
    convt3d_tensor t = convt3d_tensor_dense(NULL, dtype, rank, size);
    t.data = malloc(bytes_of(&t) + 1);
    assert_non_null(t.data);
    memset(t.data, 0xff, bytes_of(&t));
    return t;
}

static convt3d_module *make_module(const convt3d_problem *p, const convt3d_options *options) {
    convt3d_module *module = NULL;
    convt3d_error err;
    if (convt3d_module_create(p, options, &module, &err)) fail_msg("%s", err.text);
    return module;
}

static void make_run(bench *b, int rank) {
    int64_t in[5], out[5];
    convt3d_error err;
    if (convt3d_problem_output_shape(&b->p, out, &err)) fail_msg("%s", err.text);
    in[0] = b->p.batch;
    in[1] = b->p.in_channels;
    memcpy(in + 2, b->p.input_size, sizeof b->p.input_size);
    b->x = make_tensor(b->p.dtype, rank, in + 5 - rank);
    b->dx = make_tensor(b->p.dtype, rank, in + 5 - rank);
    b->y = make_tensor(b->p.dtype, rank, out + 5 - rank);
    b->dy = make_tensor(b->p.dtype, rank, out + 5 - rank);
    set_integers(&b->x);
    set_integers(&b->dy);
}

/* 'text' as a layer and a run of it, with integers everywhere. */
static bench make_bench(const char *text, int rank) {
    bench b;
    convt3d_error err;
    memset(&b, 0, sizeof b);
    if (convt3d_problem_parse(text, &b.p, NULL, 0, &err)) fail_msg("%s: %s", text, err.text);
    b.module = make_module(&b.p, NULL);
    set_integers(convt3d_module_weight(b.module));
    if (b.p.bias) set_integers(convt3d_module_bias(b.module));
    make_run(&b, rank);
    return b;
}

static void free_run(bench *b) {
    free(b->x.data);
    free(b->y.data);
    free(b->dy.data);
    free(b->dx.data);
}

static void free_bench(bench *b) {
    free_run(b);
    convt3d_module_free(b->module);
}

static void must(convt3d_status status, const convt3d_error *err) {
    if (status) fail_msg("%s: %s", convt3d_status_name(status), err->text);
}

static void forward(bench *b) {
    convt3d_error err;
    must(convt3d_module_forward(b->module, &b->x, &b->y, NULL, &err), &err);
}

static void backward(bench *b) {
    convt3d_error err;
    must(convt3d_module_backward(b->module, &b->x, &b->dy, &b->dx, NULL, &err), &err);
}

/* ---- The same as plans ------------------------------------------------------ */

static convt3d_plan *make_plan(const convt3d_problem *p, convt3d_direction direction) {
    convt3d_plan *plan;
    convt3d_error err;
    must(convt3d_plan_create(p, direction, NULL, &plan, &err), &err);
    return plan;
}

static void same_bytes(const convt3d_tensor *a, const convt3d_tensor *b) {
    assert_memory_equal(a->data, b->data, bytes_of(a));
}

/* What the module gave for b's tensors, once more by plans. */
static void check_against_plans(const bench *b) {
    convt3d_module *m = b->module;
    const convt3d_tensor *weight = convt3d_module_weight(m), *bias = convt3d_module_bias(m);
    convt3d_tensor y = make_tensor(b->p.dtype, b->y.rank, b->y.size);
    convt3d_tensor dx = make_tensor(b->p.dtype, b->x.rank, b->x.size);
    convt3d_tensor dw = make_tensor(b->p.dtype, 5, weight->size), db;
    convt3d_error err;
    if (bias) db = make_tensor(b->p.dtype, 1, bias->size);
    convt3d_plan *plan = make_plan(&b->p, CONVT3D_FORWARD);
    must(convt3d_forward(plan, &b->x, weight, NULL, bias, &y, NULL, &err), &err);
    convt3d_plan_free(plan);
    plan = make_plan(&b->p, CONVT3D_BACKWARD_INPUT);
    must(convt3d_backward_input(plan, &b->dy, weight, NULL, &dx, CONVT3D_OVERWRITE, NULL, &err),
         &err);
    convt3d_plan_free(plan);
    plan = make_plan(&b->p, CONVT3D_BACKWARD_WEIGHT);
    must(convt3d_backward_weight(plan, &b->x, &b->dy, &dw, bias ? &db : NULL, CONVT3D_OVERWRITE,
                                 NULL, &err),
         &err);
    convt3d_plan_free(plan);
    same_bytes(&b->y, &y);
    same_bytes(&b->dx, &dx);
    same_bytes(convt3d_module_grad_weight(m), &dw);
    if (bias) {
        same_bytes(convt3d_module_grad_bias(m), &db);
        free(db.data);
    }
    free(y.data);
    free(dx.data);
    free(dw.data);
}

static void test_same_as_plans(void **state) {
    (void)state;
    static const struct {
        const char *problem;
        int rank;
    } rows[] = {
        {"n2ci4co6g2i3x4x5k3x2x4s2x1x3p1x0x2op1x0x1", 5},
        {"ci3co2i4x3x5k3s2p1nb", 4},
        {"ci2co2i4x3x5k3s1x2x2p1f64mreflect", 5},
        {"n3ci2co4g2i3k2d2x3x1p1x2x0op1x2x0f64mreplicate", 5},
        {"ci1co1i5k4s2p1mcircular", 4},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bench b = make_bench(rows[i].problem, rows[i].rank);
        forward(&b);
        backward(&b);
        check_against_plans(&b);
        free_bench(&b);
    }
}

/* Other sizes than the layer's, output_size given by the output, and back. */
static void test_other_sizes(void **state) {
    (void)state;
    bench b = make_bench("n2ci3co2i4x3x5k3s2p1", 5);
    forward(&b);
    const convt3d_plan *first = b.module->latest[CONVT3D_FORWARD].plan;
    forward(&b);
    assert_ptr_equal(first, b.module->latest[CONVT3D_FORWARD].plan);
    bench other = b;
    other.p.batch = 1;
    other.p.input_size[2] = 7;
    other.p.output_padding[0] = 1;
    make_run(&other, 4);
    forward(&other);
    backward(&other);
    check_against_plans(&other);
    convt3d_module_zero_grad(b.module);
    forward(&b);
    backward(&b);
    check_against_plans(&b);
    const convt3d_plan *plans[2] = {b.module->latest[CONVT3D_BACKWARD_INPUT].plan,
                                    b.module->latest[CONVT3D_BACKWARD_WEIGHT].plan};
    backward(&b);
    assert_ptr_equal(plans[0], b.module->latest[CONVT3D_BACKWARD_INPUT].plan);
    assert_ptr_equal(plans[1], b.module->latest[CONVT3D_BACKWARD_WEIGHT].plan);
    /* The same input and another output. */
    bench larger = b;
    larger.p.output_padding[1] = 1;
    make_run(&larger, 5);
    convt3d_module_zero_grad(b.module);
    forward(&larger);
    backward(&larger);
    check_against_plans(&larger);
    free_run(&larger);
    free_run(&other);
    free_bench(&b);
}

/* Sizes that aren't known when the module is made; an empty batch. */
static void test_unknown_sizes(void **state) {
    (void)state;
    bench b = make_bench("ci3co2i4x3x5k3s2p1mreflect", 5);
    convt3d_problem layer = b.p;
    memset(layer.input_size, 0, sizeof layer.input_size);
    convt3d_module *unknown = make_module(&layer, NULL);
    assert_int_equal(convt3d_module_layer(unknown)->input_size[1], 0);
    convt3d_module_free(b.module);
    b.module = unknown;
    set_integers(convt3d_module_weight(unknown));
    set_integers(convt3d_module_bias(unknown));
    forward(&b);
    backward(&b);
    check_against_plans(&b);
    bench empty = b;
    empty.p.batch = 0;
    make_run(&empty, 5);
    forward(&empty);
    backward(&empty);
    check_against_plans(&b); /* the gradients are what they were */
    free_run(&empty);
    free_bench(&b);
}

/* ---- Gradients -------------------------------------------------------------- */

static void test_accumulate(void **state) {
    (void)state;
    bench b = make_bench("n2ci4co6g2i3x4x5k3s2p1", 5);
    const convt3d_tensor *grads[2] = {convt3d_module_grad_weight(b.module),
                                      convt3d_module_grad_bias(b.module)};
    for (int g = 0; g < 2; g++)
        for (size_t i = 0; i < count_of(grads[g]); i++) assert_true(get(grads[g], i) == 0);
    backward(&b);
    double nonzero = 0;
    double *once[2];
    for (int g = 0; g < 2; g++) {
        once[g] = malloc(count_of(grads[g]) * sizeof **once);
        assert_non_null(once[g]);
        for (size_t i = 0; i < count_of(grads[g]); i++) {
            once[g][i] = get(grads[g], i);
            nonzero += once[g][i] != 0;
        }
    }
    assert_true(nonzero > 0.9 * (double)(count_of(grads[0]) + count_of(grads[1])));
    /* Without grad_input the parameters' gradients are the same. */
    convt3d_error err;
    must(convt3d_module_backward(b.module, &b.x, &b.dy, NULL, NULL, &err), &err);
    for (int g = 0; g < 2; g++) {
        for (size_t i = 0; i < count_of(grads[g]); i++)
            assert_true(get(grads[g], i) == 2 * once[g][i]);
        free(once[g]);
    }
    convt3d_module_zero_grad(b.module);
    for (int g = 0; g < 2; g++)
        for (size_t i = 0; i < count_of(grads[g]); i++) assert_true(get(grads[g], i) == 0);
    free_bench(&b);
}

/* <dy, layer(x)>, whose derivatives backward claims to give. */
static double loss(bench *b) {
    double sum = 0;
    forward(b);
    for (size_t i = 0; i < count_of(&b->y); i++) sum += get(&b->y, i) * get(&b->dy, i);
    return sum;
}

/* The loss is linear in each single value, so a central difference over any
 * step is its derivative but for rounding. */
static void check_derivatives(bench *b, const convt3d_tensor *values, const convt3d_tensor *grad,
                              const char *text, const char *name) {
    for (size_t i = 0; i < count_of(values); i++) {
        double before = get(values, i);
        set(values, i, before + 1);
        double up = loss(b);
        set(values, i, before - 1);
        double difference = (up - loss(b)) / 2;
        set(values, i, before);
        if (!(fabs(difference - get(grad, i)) < 1e-10))
            fail_msg("%s: %s[%zu] is %.17g, but the difference quotient is %.17g", text, name, i,
                     get(grad, i), difference);
    }
}

static void test_derivatives(void **state) {
    (void)state;
    static const char *const rows[] = {
        "n2ci2co4g2i2x3x2k3x2x3s2x1x3p1x0x1op1x0x2f64",
        "ci2co1i2x3x3k3s2x1x2p1x0x1d1x2x1f64mreflect",
        "ci1co2i2x3x3k4x3x3s2x1x2p2x1x0x1x1x2f64mreplicate",
        "ci2co2g2i3x2x3k3s1x2x2p1x1x2op0x1x1f64mcircular",
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bench b = make_bench(rows[i], 5);
        convt3d_module *m = b.module;
        const convt3d_tensor *tensors[] = {&b.x, &b.dy, convt3d_module_weight(m),
                                           convt3d_module_bias(m)};
        for (int t = 0; t < 4; t++)
            for (size_t j = 0; j < count_of(tensors[t]); j++)
                set(tensors[t], j, rng_normal(&random_numbers));
        backward(&b);
        check_derivatives(&b, &b.x, &b.dx, rows[i], "grad_input");
        check_derivatives(&b, tensors[2], convt3d_module_grad_weight(m), rows[i], "grad_weight");
        check_derivatives(&b, tensors[3], convt3d_module_grad_bias(m), rows[i], "grad_bias");
        free_bench(&b);
    }
}

/* ---- Progress and cancelling ------------------------------------------------ */

typedef struct progress {
    double last;
    int calls, backwards, late, cancel_at;
} progress;

static int watch(void *data, double done) {
    progress *p = data;
    p->calls++;
    p->backwards += done < p->last || done > 1;
    p->late += done >= 0.5;
    p->last = done;
    return p->cancel_at && p->calls >= p->cancel_at;
}

/* One progress from 0 to 1 over the two runs of a backward call.  The reference
 * is slow enough to be asked several times on any machine. */
static void test_progress(void **state) {
    (void)state;
    const int slow = getenv("CONVT3D_TEST_PERCENT") != NULL; /* sanitizers */
    bench b = make_bench(slow ? "ci16co16i9k4s2p1" : "ci16co16i20k4s2p1", 5);
    convt3d_options options;
    convt3d_run run;
    progress seen = {0, 0, 0, 0, 0};
    convt3d_error err;
    convt3d_options_init(&options);
    convt3d_run_init(&run);
    options.algorithm = "reference";
    options.threads = 1;
    run.poll = watch;
    run.poll_data = &seen;
    convt3d_module_free(b.module);
    b.module = make_module(&b.p, &options);
    must(convt3d_module_backward(b.module, &b.x, &b.dy, &b.dx, &run, &err), &err);
    assert_true(seen.calls >= 2 && seen.backwards == 0);
    assert_true(seen.late >= 1 && seen.late < seen.calls);
    seen = (progress){0, 0, 0, 0, 1};
    assert_int_equal(convt3d_module_backward(b.module, &b.x, &b.dy, &b.dx, &run, &err),
                     CONVT3D_CANCELLED);
    assert_int_equal(seen.calls, 1);
    free_bench(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_plans), cmocka_unit_test(test_other_sizes),
        cmocka_unit_test(test_unknown_sizes), cmocka_unit_test(test_accumulate),
        cmocka_unit_test(test_derivatives),   cmocka_unit_test(test_progress),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
