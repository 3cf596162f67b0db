/* judge: one layer by everything that can compute it, against the oracle.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TESTS_JUDGE_H
#define CONVT3D_TESTS_JUDGE_H

#include "material.h"

/* Compares l->value of what was computed with the oracle's, which isn't rounded to the dtype. 'who'
 * is the reference or the name of an instruction set. */
typedef void verdict(const layer *l, real *const expected[4], const char *who, void *arg);

/* Computes what is unknown in 'l' by the reference and on every instruction
 * set, from memory full of NaN, and lets 'judge' look at each result. */
void judge_all(layer *l, int with_bias, verdict *judge, void *arg);

/* Fails the test, saying which layer it was. */
void judge_wrong(const layer *l, const char *who, const char *what);

#endif
