/* oracle: the layer once more, written from its definition and sharing no code
 * with the library, to judge the library by.
 * SPDX-License-Identifier: MIT
 *
 * Everything here is dense, in the order of the axes, and of type 'real', which
 * is wider than both data types that it judges.  Sums of magnitudes are had by
 * passing absolute values, numbers of products by passing ones, and what can
 * reach what by passing ones at the places of interest. */
#ifndef CONVT3D_TESTS_ORACLE_H
#define CONVT3D_TESTS_ORACLE_H

#include "convt3d.h"

typedef long double real;

typedef enum oracle_role {
    ORACLE_INPUT,
    ORACLE_WEIGHT,
    ORACLE_OUTPUT,
    ORACLE_BIAS
} oracle_role;

/* The output's size on one axis, which may be anything, even negative. */
int64_t oracle_output_size(const convt3d_problem *p, int axis);

/* Where output position 'o', which may lie outside of the output, is folded to
 * on one axis by the padding mode; -1 if it is cropped away. */
int64_t oracle_fold(const convt3d_problem *p, int axis, int64_t o);

/* The shape of a tensor in this role; returns its rank (5, or 1 for bias). */
int oracle_shape(const convt3d_problem *p, oracle_role role, int64_t shape[5]);
int64_t oracle_count(const convt3d_problem *p, oracle_role role);

/* The number of multiplications of one direction, cropped taps included. */
int64_t oracle_products(const convt3d_problem *p);

/* All of these overwrite their last argument.  'bias' may be NULL. */
void oracle_forward(const convt3d_problem *p, const real *x, const real *w, const real *bias,
                    real *y);
void oracle_backward_input(const convt3d_problem *p, const real *dy, const real *w, real *dx);
void oracle_backward_weight(const convt3d_problem *p, const real *x, const real *dy, real *dw);
void oracle_backward_bias(const convt3d_problem *p, const real *dy, real *db);

/* Any direction: values by role, of which the unknown ones are overwritten.
 * The bias may be NULL, and isn't looked at by backward_input. */
void oracle_run(const convt3d_problem *p, convt3d_direction direction, real *const values[4]);

#endif
