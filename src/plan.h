/* plan: what every algorithm shares: the plan, one call of it, and the list.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_PLAN_H
#define CONVT3D_PLAN_H

#include "error.h"
#include "kernel.h"
#include "problem.h"
#include "tensor.h"
#include "threads.h"

typedef struct convt3d_algorithm convt3d_algorithm;

struct convt3d_plan {
    convt3d_problem problem;
    convt3d_geometry geometry;
    convt3d_direction direction;
    int32_t threads;
    convt3d_activation activation;    /* forward only */
    double negative_slope;            /* as a number holds it */
    convt3d_precision precision;      /* of float32 */
    const convt3d_kernels *kernels;   /* of the isa */
    const convt3d_type_kernels *type; /* of the numbers that the dtype is computed with */
    const convt3d_movers *movers;     /* of the dtype */
    const convt3d_algorithm *algorithm;
    void *details; /* the algorithm's own, one block that free() frees */
    /* What runs in its place where weights aren't packed, or their gradient is wanted, and rows
     * are dense; NULL: nothing does. */
    const convt3d_algorithm *direct;
    void *direct_details;
    size_t packed_bytes; /* of packed weights; 0 for backward_weight */
    size_t packed_whole; /* of those that serve any plan for the layer */
    char declined[256];  /* why the algorithms before it in the list declined */
};

/* Packed weights start with this, then, CONVT3D_ALIGN bytes on, the data. */
typedef struct convt3d_packed {
    int nonfinite;       /* there is an Inf or NaN in the weights */
    int whole;           /* all that any plan for this layer may want, not just this one */
    convt3d_range range; /* of the weights, where there are terms of them */
    /* Where terms alone were packed: 1 until the numbers are, too; which of the tasks that
     * pack them is next, and how many are done.  Atomic. */
    int lacks_numbers;
    int64_t next, done;
} convt3d_packed;

enum {
    CONVT3D_ALIGN = 64
};

/* One run: the tensors of the direction (unused ones zeroed), checked. */
typedef struct convt3d_call {
    const convt3d_plan *plan;
    convt3d_view input;  /* forward: input; backward_weight: input */
    convt3d_view output; /* forward: output; backward: grad_output */
    convt3d_view weight; /* raw weights, or grad_weight */
    convt3d_view bias;   /* bias, as numbers, or grad_bias; data NULL: none */
    convt3d_view grad_input;
    int has_weight; /* backward_weight: grad_weight is wanted */
    int accumulate;
    convt3d_packed *packed; /* aligned; forward and backward_input */
    char *scratch;          /* aligned; what the algorithm asked for */
    convt3d_job job;
} convt3d_call;

struct convt3d_algorithm {
    const char *name;
    /* Sets plan->details and plan->packed_bytes, or plan->direct_details.  If it can't or shouldn't
     * do this problem, says why and returns OK with *accepted 0. */
    convt3d_status (*prepare)(convt3d_plan *plan, int *accepted, const char **why,
                              convt3d_error *err);
    /* Scratch bytes of a run; false if they exceed PTRDIFF_MAX. */
    int (*scratch)(const convt3d_plan *plan, int32_t threads, size_t *bytes);
    /* The run itself; its last loop ends at 1. */
    void (*run)(convt3d_call *call);
    /* Packed weights: a number of independent tasks. */
    int64_t (*pack_tasks)(const convt3d_plan *plan);
    void (*pack)(const convt3d_plan *plan, const convt3d_view *weight, convt3d_packed *packed,
                 int64_t task, int thread);
    /* What was chosen, for people: "key: value" lines. */
    void (*describe)(const convt3d_plan *plan, convt3d_text *text);
};

extern const convt3d_algorithm convt3d_engine_correlate;    /* forward, backward_input */
extern const convt3d_algorithm convt3d_engine_outer;        /* backward_weight */
extern const convt3d_algorithm convt3d_engine_matrix;       /* beside them */
extern const convt3d_algorithm convt3d_reference_algorithm; /* all */

/* Checks struct_size and copies the options, with defaults for what the caller's
 * lack; 'options' may be NULL. */
convt3d_status convt3d_options_take(const convt3d_options *options, convt3d_options *taken,
                                    convt3d_error *err);

/* The movers of the caller's elements of some dtype. */
static inline const convt3d_movers *convt3d_movers_of(const convt3d_plan *plan,
                                                      convt3d_dtype dtype) {
    return plan->kernels->movers[dtype - 1];
}

/* Bytes of the scratch that holds a bias as numbers, where the caller's may be others. */
size_t convt3d_bias_bytes(const convt3d_plan *plan);

/* a + b*c for scratch sizes; false on overflow beyond PTRDIFF_MAX. */
int convt3d_grow(size_t *total, size_t count, size_t bytes);

/* Rounds up to CONVT3D_ALIGN. */
size_t convt3d_round_up(size_t bytes);

#endif
