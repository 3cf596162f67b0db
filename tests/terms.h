/* terms: one layer by plans with products of terms and without, for the tests of both.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TESTS_TERMS_H
#define CONVT3D_TESTS_TERMS_H

#include "material.h"

/* Whether this CPU has them, and the best instruction set that hasn't: NULL, which is any,
 * where no other has. */
int terms_there(void);
const char *terms_plain_isa(void);

/* $CONVT3D_TEST_PERCENT of 'count', and at least one. */
int terms_cases(int count);

convt3d_problem terms_problem(const char *text);

typedef enum terms_order {
    TERMS_DENSE,
    TERMS_CHANNELS_LAST, /* closest in memory */
    TERMS_SAMPLES_LAST
} terms_order;

/* A layer's input (or grad_output), weight (in backward_weight: its input), and how it is
 * computed. */
typedef struct terms_work {
    convt3d_problem p;
    convt3d_direction direction;
    const char *isa, *algorithm;
    convt3d_precision precision;
    int32_t threads;
    float *source, *weight;
    terms_order order; /* of source and result in memory */
} terms_work;

typedef float terms_number(rng *r);

float terms_small_integer(rng *r); /* -8 to 8 */
float terms_normal(rng *r);

/* A layer of such numbers, on two threads. */
terms_work terms_make(rng *r, const char *text, convt3d_direction direction, terms_number *source,
                      terms_number *weight);
void terms_free(terms_work *w);

/* What is read, in two, and what is written. */
oracle_role terms_source(convt3d_direction direction);
oracle_role terms_second(convt3d_direction direction);
oracle_role terms_result(convt3d_direction direction);

/* A role's five sizes; returns their product. */
int64_t terms_shape(const convt3d_problem *p, oracle_role role, int64_t shape[5]);
convt3d_tensor terms_tensor(const convt3d_problem *p, oracle_role role, float *data,
                            terms_order order);

convt3d_plan *terms_plan(const terms_work *w);

/* The result, to be freed; *terms counts plans that multiply terms. */
float *terms_compute(const terms_work *w, int *terms);

/* Fails unless both results are the same, with the first place where they aren't. */
void terms_same(const terms_work *w, const float *a, const float *b, const char *what);

#endif
