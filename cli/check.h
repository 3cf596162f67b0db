/* check: random small problems with integer data, for the self-test.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_CLI_CHECK_H
#define CONVT3D_CLI_CHECK_H

#include "convt3d.h"

/* The next 64 random bits; 'state' may start with anything. */
uint64_t check_random(uint64_t *state);

/* A legal problem from the whole argument space, with few enough products for
 * the reference to be quick, and a limit for integer data that keeps all of
 * its sums exact in its dtype. */
void check_problem(uint64_t *state, convt3d_dtype dtype, convt3d_problem *problem, int64_t *limit);

/* A tensor in new memory, its axes in a random order there.  data NULL if
 * there is no memory. */
convt3d_tensor check_tensor(uint64_t *state, convt3d_dtype dtype, int rank, const int64_t *size);

/* A tensor of the same layout in new memory of its own. */
convt3d_tensor check_tensor_like(const convt3d_tensor *tensor);

void check_fill_integers(uint64_t *state, const convt3d_tensor *tensor, int64_t limit);
void check_fill_nan(const convt3d_tensor *tensor);

/* The index in memory of the first element that differs, or -1. */
int64_t check_compare(const convt3d_tensor *a, const convt3d_tensor *b);
double check_element(const convt3d_tensor *tensor, int64_t index);
int64_t check_nonzero(const convt3d_tensor *tensor);

#endif
