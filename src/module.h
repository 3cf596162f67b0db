/* module: what module.c (what a module holds) and module_run.c (what it
 * computes) share.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_MODULE_H
#define CONVT3D_MODULE_H

#include "convt3d.h"

enum {
    CONVT3D_DIRECTIONS = 3
};

/* The plan of a direction's latest run, and what it was made for. */
typedef struct convt3d_latest {
    convt3d_problem problem;
    convt3d_plan *plan;
} convt3d_latest;

struct convt3d_module {
    convt3d_problem layer;
    convt3d_options options;
    char *isa, *algorithm;                               /* owned copies of the options' names */
    convt3d_tensor weight, bias, grad_weight, grad_bias; /* data NULL: no bias */
    convt3d_latest latest[CONVT3D_DIRECTIONS];
};

/* The layer as a problem for an input of this rank (4 or 5) and size and, if
 * output_size isn't NULL, for that output. */
convt3d_status convt3d_module_problem(const convt3d_module *module, int32_t rank,
                                      const int64_t *size, const int64_t *output_size,
                                      convt3d_problem *problem, convt3d_error *err);

/* SHAPE unless rank is 4 or 5. */
convt3d_status convt3d_module_check_rank(const char *name, int32_t rank, convt3d_error *err);

#endif
