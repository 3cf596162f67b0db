/* problem: a checked problem, with the sizes that follow from it.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_PROBLEM_H
#define CONVT3D_PROBLEM_H

#include "convt3d.h"

/* One spatial axis.  Positions of the full result (nothing cropped, then
 * output_padding more) are called u; output index o is u - before. */
typedef struct convt3d_axis {
    int64_t in, out, kernel, stride, dilation, before, after;
    int64_t full;              /* positions u: (in-1)*stride + dilation*(kernel-1) + 1 + op */
    convt3d_padding_mode mode; /* ZEROS where there is no padding to fold */
} convt3d_axis;

typedef struct convt3d_geometry {
    convt3d_axis axis[3];
    int64_t batch, groups;
    int64_t in_channels, out_channels;   /* all groups together */
    int64_t group_inputs, group_outputs; /* channels of one group */
    size_t element;                      /* bytes of a number: of packed rows, sums and scratch */
    size_t stored;                       /* bytes of an element of the caller's tensors */
} convt3d_geometry;

/* Checks every field and every size that follows.  'geometry' may be NULL. */
convt3d_status convt3d_problem_check(const convt3d_problem *problem, convt3d_geometry *geometry,
                                     convt3d_error *err);

/* The product of 'count' non-negative sizes times 'element' bytes: 0 and a
 * false result if it exceeds PTRDIFF_MAX. */
int convt3d_bytes(const int64_t *sizes, int count, size_t element, size_t *bytes);

#endif
