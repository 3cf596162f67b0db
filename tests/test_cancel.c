/* test_cancel: polls come on the caller's thread while it works, and stop a long
 * run within a second; the next run is right.
 * SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "material.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

typedef struct watch {
    pthread_t caller;
    double started, stop_after, stopped;
    double done;
    int polls, wrong_thread, went_back, beyond;
} watch;

static int look(void *data, double done) {
    watch *w = data;
    w->polls++;
    w->wrong_thread += !pthread_equal(pthread_self(), w->caller);
    w->went_back += done < w->done;
    w->beyond += !(done >= 0 && done <= 1);
    w->done = done;
    if (seconds() - w->started < w->stop_after) return 0;
    if (!w->stopped) w->stopped = seconds();
    return 1;
}

static void serial(void *data, int threads, convt3d_body body, void *arg) {
    (void)data;
    for (int t = 0; t < threads; t++) body(arg, t);
}

/* A tensor in this role; what is only read is one number, seen often. */
static material tensor(rng *r, const convt3d_problem *p, convt3d_direction d, oracle_role role) {
    convt3d_problem one = *p;
    int64_t shape[5];
    if (layer_unknown(d, role)) return material_make(r, p, p->dtype, role, LAYOUT_DENSE, 0);
    one.batch = one.in_channels = one.out_channels = one.groups = 1;
    for (int a = 0; a < 3; a++) {
        one.input_size[a] = one.kernel_size[a] = one.stride[a] = 1;
        one.padding_before[a] = one.padding_after[a] = one.output_padding[a] = 0;
    }
    material m = material_make(r, &one, one.dtype, role, LAYOUT_DENSE, 0);
    real value = 1;
    material_store(&m, &value);
    int rank = oracle_shape(p, role, shape);
    for (int a = 0; a < rank; a++) {
        m.tensor.size[a] = shape[a];
        m.tensor.stride[a] = 0;
    }
    return m;
}

/* Work of many minutes, on little memory. */
static const struct {
    const char *text, *algorithm;
} endless[3][2] = {{{"n1ci8192co64i64k3p1", NULL}, {"n1ci2048co64i64k3p1", "reference"}},
                   {{"n1ci64co8192i64k3p1", NULL}, {"n1ci64co2048i64k3p1", "reference"}},
                   {{"n999ci64co64i64k3p1", NULL}, {"n999ci64co64i64k3p1", "reference"}}};

/* Then a small one, as if nothing had been. */
static void next_run_is_right(convt3d_direction d) {
    convt3d_problem p;
    rng r = {1};
    convt3d_plan *plan;
    assert_int_equal(convt3d_problem_parse("n2ci3co4i5k3s2p1", &p, NULL, 0, NULL), CONVT3D_OK);
    layer l = layer_make(&r, &p, d, LAYER_DENSE);
    real *expected[4];
    for (int role = 0; role < 4; role++) {
        int64_t count = oracle_count(&p, (oracle_role)role);
        expected[role] = calloc((size_t)count + 1, sizeof(real));
        for (int64_t i = 0; i < count; i++)
            expected[role][i] = l.value[role][i] = (real)rng_between(&r, -4, 4);
        if (layer_known(d, (oracle_role)role)) layer_store(&l, (oracle_role)role);
    }
    oracle_run(&p, d, expected);
    assert_int_equal(convt3d_plan_create(&p, d, NULL, &plan, NULL), CONVT3D_OK);
    assert_int_equal(layer_run(&l, plan, NULL, 1, CONVT3D_OVERWRITE, NULL, NULL), CONVT3D_OK);
    for (int role = 0; role < 4; role++) {
        if (layer_unknown(d, (oracle_role)role)) {
            material_load(&l.tensor[role], l.value[role]);
            for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
                assert_true(l.value[role][i] == expected[role][i]);
        }
        free(expected[role]);
    }
    convt3d_plan_free(plan);
    layer_free(&l);
}

static void cancel(convt3d_direction d, int which, int threads, int host) {
    convt3d_problem p;
    convt3d_error err = {CONVT3D_OK, ""};
    convt3d_options o;
    convt3d_plan *plan;
    convt3d_run run;
    rng r = {1};
    layer l;
    if (convt3d_problem_parse(endless[d][which].text, &p, NULL, 0, &err)) fail_msg("%s", err.text);
    l.p = p;
    l.direction = d;
    for (int role = 0; role < 4; role++) l.tensor[role] = tensor(&r, &p, d, (oracle_role)role);
    convt3d_options_init(&o);
    o.threads = threads;
    o.algorithm = endless[d][which].algorithm;
    if (convt3d_plan_create(&p, d, &o, &plan, &err)) fail_msg("%s", err.text);
    watch w = {.caller = pthread_self(), .started = seconds(), .stop_after = 0.9};
    convt3d_run_init(&run);
    run.poll = look;
    run.poll_data = &w;
    if (host) run.parallel = serial;
    convt3d_status status = layer_run(&l, plan, NULL, 1, CONVT3D_OVERWRITE, &run, &err);
    double late = seconds() - w.stopped;
    assert_int_equal(status, CONVT3D_CANCELLED);
    assert_int_equal(err.status, CONVT3D_CANCELLED);
    if (!(w.stopped > 0 && late < 1))
        fail_msg("%s, %s: returned %.2f s after the poll", endless[d][which].text,
                 which ? "reference" : "engine", late);
    assert_true(w.polls >= 2 && w.polls <= 40); /* about ten times a second */
    assert_int_equal(w.wrong_thread + w.went_back + w.beyond, 0);
    convt3d_plan_free(plan);
    for (int role = 0; role < 4; role++) material_free(&l.tensor[role]);
    next_run_is_right(d);
}

static void cancel_forward(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) cancel(CONVT3D_FORWARD, 0, threads, 0);
}

static void cancel_backward_input(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) cancel(CONVT3D_BACKWARD_INPUT, 0, threads, 0);
}

static void cancel_backward_weight(void **state) {
    (void)state;
    for (int threads = 1; threads <= 3; threads++) cancel(CONVT3D_BACKWARD_WEIGHT, 0, threads, 0);
}

static void cancel_the_reference(void **state) {
    (void)state;
    for (int d = 0; d < 3; d++) cancel((convt3d_direction)d, 1, 2, 0);
}

static void cancel_on_the_hosts_threads(void **state) {
    (void)state;
    for (int d = 0; d < 3; d++) cancel((convt3d_direction)d, 0, 2, 1);
}

/* A poll that never stops anything changes nothing. */
static void polls_that_only_look(void **state) {
    (void)state;
    for (int d = 0; d < 3; d++) {
        convt3d_problem p;
        convt3d_plan *plan;
        convt3d_run run;
        rng r = {1};
        assert_int_equal(convt3d_problem_parse("n8ci32co32i12k3p1", &p, NULL, 0, NULL), CONVT3D_OK);
        layer l = layer_make(&r, &p, (convt3d_direction)d, LAYER_DENSE);
        for (int role = 0; role < 4; role++) {
            for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
                l.value[role][i] = rng_normal(&r);
            if (layer_known((convt3d_direction)d, (oracle_role)role))
                layer_store(&l, (oracle_role)role);
        }
        assert_int_equal(convt3d_plan_create(&p, (convt3d_direction)d, NULL, &plan, NULL),
                         CONVT3D_OK);
        int role = d == 0 ? ORACLE_OUTPUT : d == 1 ? ORACLE_INPUT : ORACLE_WEIGHT;
        const guarded *result = &l.tensor[role].memory;
        char *first = malloc(result->size);
        assert_int_equal(layer_run(&l, plan, NULL, 0, CONVT3D_OVERWRITE, NULL, NULL), CONVT3D_OK);
        memcpy(first, result->data, result->size);
        memset(result->data, 0xFF, result->size);
        watch w = {.caller = pthread_self(), .started = seconds(), .stop_after = 1e9};
        convt3d_run_init(&run);
        run.poll = look;
        run.poll_data = &w;
        assert_int_equal(layer_run(&l, plan, NULL, 0, CONVT3D_OVERWRITE, &run, NULL), CONVT3D_OK);
        assert_memory_equal(first, result->data, result->size);
        assert_int_equal(w.wrong_thread + w.went_back + w.beyond, 0);
        free(first);
        convt3d_plan_free(plan);
        layer_free(&l);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancel_forward),
        cmocka_unit_test(cancel_backward_input),
        cmocka_unit_test(cancel_backward_weight),
        cmocka_unit_test(cancel_the_reference),
        cmocka_unit_test(cancel_on_the_hosts_threads),
        cmocka_unit_test(polls_that_only_look),
    };
    return cmocka_run_group_tests_name("cancel", tests, NULL, NULL);
}
