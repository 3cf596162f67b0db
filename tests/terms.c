/* terms: see terms.h.
 * SPDX-License-Identifier: MIT */
#include "terms.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

int terms_there(void) {
    return convt3d_isa_supported("x86_amx");
}

const char *terms_plain_isa(void) {
    return terms_there() ? "x86_avx512" : NULL;
}

int terms_cases(int count) {
    const int part = test_count(count);
    return part > 0 ? part : 1;
}

convt3d_problem terms_problem(const char *text) {
    convt3d_problem p;
    convt3d_error err;
    if (convt3d_problem_parse(text, &p, NULL, 0, &err)) fail_msg("%s: %s", text, err.text);
    return p;
}

int64_t terms_shape(const convt3d_problem *p, oracle_role role, int64_t shape[5]) {
    oracle_shape(p, role, shape);
    return oracle_count(p, role);
}

oracle_role terms_source(convt3d_direction direction) {
    return direction == CONVT3D_FORWARD ? ORACLE_INPUT : ORACLE_OUTPUT;
}

oracle_role terms_second(convt3d_direction direction) {
    return direction == CONVT3D_BACKWARD_WEIGHT ? ORACLE_INPUT : ORACLE_WEIGHT;
}

oracle_role terms_result(convt3d_direction direction) {
    if (direction == CONVT3D_BACKWARD_WEIGHT) return ORACLE_WEIGHT;
    return direction == CONVT3D_FORWARD ? ORACLE_OUTPUT : ORACLE_INPUT;
}

convt3d_tensor terms_tensor(const convt3d_problem *p, oracle_role role, float *data,
                            terms_order order) {
    static const int axes[3][5] = {{4, 3, 2, 1, 0}, {1, 4, 3, 2, 0}, {0, 4, 3, 2, 1}};
    int64_t shape[5], step = 1;
    terms_shape(p, role, shape);
    convt3d_tensor t = convt3d_tensor_dense(data, CONVT3D_FLOAT32, 5, shape);
    for (int i = 0; i < 5 && role != ORACLE_WEIGHT; i++) {
        const int axis = axes[order][i];
        t.stride[axis] = step;
        step *= shape[axis];
    }
    return t;
}

convt3d_plan *terms_plan(const terms_work *w) {
    convt3d_options options;
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_options_init(&options);
    options.isa = w->isa;
    options.algorithm = w->algorithm;
    options.precision = w->precision;
    options.threads = w->threads;
    if (convt3d_plan_create(&w->p, w->direction, &options, &plan, &err)) fail_msg("%s", err.text);
    return plan;
}

static int uses_terms(const convt3d_plan *plan) {
    char text[2000];
    convt3d_plan_describe(plan, text, sizeof text);
    return strstr(text, "where they fit its range") != NULL;
}

float *terms_compute(const terms_work *w, int *terms) {
    const int64_t count = oracle_count(&w->p, terms_result(w->direction));
    float *result = malloc((size_t)(count + 1) * sizeof *result);
    convt3d_plan *plan = terms_plan(w);
    convt3d_tensor from = terms_tensor(&w->p, terms_source(w->direction), w->source, w->order);
    convt3d_tensor weight = terms_tensor(&w->p, terms_second(w->direction), w->weight, TERMS_DENSE);
    convt3d_tensor to = terms_tensor(&w->p, terms_result(w->direction), result, w->order);
    convt3d_error err;
    memset(result, 0xff, (size_t)count * sizeof *result);
    convt3d_status status;
    if (w->direction == CONVT3D_FORWARD)
        status = convt3d_forward(plan, &from, &weight, NULL, NULL, &to, NULL, &err);
    else if (w->direction == CONVT3D_BACKWARD_INPUT)
        status =
            convt3d_backward_input(plan, &from, &weight, NULL, &to, CONVT3D_OVERWRITE, NULL, &err);
    else
        status =
            convt3d_backward_weight(plan, &weight, &from, &to, NULL, CONVT3D_OVERWRITE, NULL, &err);
    if (status) fail_msg("%s", err.text);
    if (terms) *terms += uses_terms(plan);
    convt3d_plan_free(plan);
    return result;
}

float terms_small_integer(rng *r) {
    return (float)rng_between(r, -8, 8);
}

float terms_normal(rng *r) {
    return (float)rng_normal(r);
}

terms_work terms_make(rng *r, const char *text, convt3d_direction direction, terms_number *source,
                      terms_number *weight) {
    terms_work w = {.p = terms_problem(text), .direction = direction, .threads = 2};
    const int64_t n = oracle_count(&w.p, terms_source(direction));
    const int64_t m = oracle_count(&w.p, terms_second(direction));
    w.source = malloc((size_t)(n + 1) * sizeof(float));
    w.weight = malloc((size_t)(m + 1) * sizeof(float));
    for (int64_t i = 0; i < n; i++) w.source[i] = source(r);
    for (int64_t i = 0; i < m; i++) w.weight[i] = weight(r);
    return w;
}

void terms_free(terms_work *w) {
    free(w->source);
    free(w->weight);
}

void terms_same(const terms_work *w, const float *a, const float *b, const char *what) {
    const int64_t count = oracle_count(&w->p, terms_result(w->direction));
    for (int64_t i = 0; i < count; i++) {
        if (memcmp(&a[i], &b[i], sizeof *a) == 0) continue;
        print_error("%s %s, %s: element %lld is %.9g, but %.9g\n", problem_text(&w->p),
                    convt3d_direction_name(w->direction), convt3d_precision_name(w->precision),
                    (long long)i, (double)a[i], (double)b[i]);
        fail_msg("%s", what);
    }
}
