/* glue: what the package's own C files share.  They turn R's objects into the
 * library's and do no arithmetic on the layer.
 *
 * A tensor comes from R as a view, list(data, shape, column_major): data is a
 * raw vector of float32 or a double vector, shape the sizes of the axes
 * (N, C, D, H, W), and column_major says whether the first axis of 'shape' is
 * the fastest in memory (R's arrays) or the last one (everything else).
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_R_GLUE_H
#define CONVT3D_R_GLUE_H

#define R_NO_REMAP
#include "convt3d.h"

#include <R.h>
#include <Rinternals.h>

/* ---- views.c ---- */

/* The tensor that a view describes.  A rank above CONVT3D_MAX_RANK is kept, for the
 * library to report. */
convt3d_tensor glue_tensor(SEXP view);
convt3d_dtype glue_dtype(SEXP name); /* of "float32" or "float64" */
int64_t glue_count(const convt3d_tensor *tensor);

/* Fresh memory for 'count' elements, not cleared: a raw or a double vector. */
SEXP glue_storage(convt3d_dtype dtype, int64_t count);

/* Raises an R error with the library's text. */
void glue_check(convt3d_status status, const convt3d_error *err);

/* ---- plans.c ---- */

/* The layer's arguments, from R's list of them. */
convt3d_problem glue_problem(SEXP layer);

convt3d_precision glue_precision(SEXP layer);

/* A plan for this problem, kept for the next call; never to be freed. */
const convt3d_plan *glue_plan(const convt3d_problem *problem, convt3d_direction direction,
                              int threads, convt3d_precision precision);
void glue_forget_plans(void);

/* ---- parameters.c ---- */

void glue_forget_generator(void);

/* ---- The functions that R calls; each is described where it is defined ---- */

SEXP glue_r_storage(SEXP dtype, SEXP shape, SEXP as_array);
SEXP glue_r_convert(SEXP from, SEXP dtype, SEXP column_major);
SEXP glue_r_arithmetic(SEXP op, SEXP a, SEXP b);
SEXP glue_r_sum(SEXP data);
SEXP glue_r_output_shape(SEXP layer, SEXP input_shape, SEXP output_size);
SEXP glue_r_forward(SEXP layer, SEXP input, SEXP weight, SEXP bias, SEXP output, SEXP threads);
SEXP glue_r_backward_input(SEXP layer, SEXP grad_output, SEXP weight, SEXP grad_input,
                           SEXP threads);
SEXP glue_r_backward_weight(SEXP layer, SEXP input, SEXP grad_output, SEXP grad_weight,
                            SEXP grad_bias, SEXP threads);
SEXP glue_r_seed(SEXP seed);
SEXP glue_r_normal(SEXP dtype, SEXP count);
SEXP glue_r_fill(SEXP layer, SEXP dtype, SEXP bias, SEXP fill);
SEXP glue_r_info(void);
SEXP glue_r_is_regular(SEXP path);

#endif
