/* material: what the tests of the layer are fed with: seeded random numbers,
 * problems from all over the argument space, tensors in every memory layout,
 * and memory that faults one byte beyond its end or before its start.
 * SPDX-License-Identifier: MIT */
#ifndef CONVT3D_TESTS_MATERIAL_H
#define CONVT3D_TESTS_MATERIAL_H

#include "oracle.h"

/* ---- Random numbers ----------------------------------------------------- */

typedef struct rng {
    uint64_t state;
} rng;

uint64_t rng_next(rng *r);
int64_t rng_between(rng *r, int64_t low, int64_t high); /* both included */
int rng_chance(rng *r, int percent);
double rng_normal(rng *r);

/* The first argument, else $CONVT3D_TEST_SEED, else a fixed number; printed, so
 * that any failure can be had again. */
uint64_t test_seed(int argc, char **argv);

/* $CONVT3D_TEST_PERCENT of 'count' (default: all of it), for slow sanitizers. */
int test_count(int count);

/* ---- Problems ----------------------------------------------------------- */

/* Any legal problem of at most so many products (empty batches included),
 * with a liking for odd corners. */
void random_problem(rng *r, int64_t most_products, convt3d_problem *p);

/* The problem string, in a buffer of its own that the next call reuses. */
const char *problem_text(const convt3d_problem *p);

/* ---- Memory and tensors ------------------------------------------------- */

typedef struct guarded {
    unsigned char *map;
    size_t map_size;
    unsigned char *data;
    size_t size;
} guarded;

/* 'size' bytes of 0xFF (a NaN in both types) that touch an unreadable page with
 * their end or with their start. */
guarded guarded_alloc(size_t size, int at_end);
void guarded_free(guarded *g);

typedef enum layout {
    LAYOUT_DENSE,
    LAYOUT_CHANNELS_LAST,
    LAYOUT_REVERSED, /* the first axis contiguous: column-major */
    LAYOUT_PERMUTED,
    LAYOUT_NEGATIVE, /* some axes run backwards */
    LAYOUT_SLICE,    /* every axis with gaps, and not from the start */
    LAYOUT_REPEATED, /* zero strides on some axes: inputs only */
    LAYOUT_COUNT
} layout;

typedef struct material {
    guarded memory;
    convt3d_tensor tensor;
} material;

/* A tensor of this dtype for this role, all NaN.  'unbatched' leaves the batch axis out. */
material material_make(rng *r, const convt3d_problem *p, convt3d_dtype dtype, oracle_role role,
                       layout how, int unbatched);
void material_free(material *m);

/* A number as a dtype holds it: rounded to nearest, ties to even. */
real material_round(convt3d_dtype dtype, real value);

/* Between the tensor and dense values.  After storing into a layout that
 * repeats elements, load says what is there. */
void material_store(const material *m, const real *values);
void material_load(const material *m, real *values);

/* 1 if all bytes are still 0xFF: every one, or those between the elements. */
int material_untouched(const material *m);
int material_gaps_untouched(const material *m);

/* ---- A layer and all its tensors ---------------------------------------- */

/* By role: memory in some layout, and the same values for the oracle. */
typedef struct layer {
    convt3d_problem p;
    convt3d_direction direction;
    material tensor[4];
    real *value[4];
} layer;

#define LAYER_DENSE     1 /* all tensors dense; else in random layouts */
#define LAYER_UNBATCHED 2 /* for a batch of 1: 4-D tensors */
#define LAYER_ONE_DTYPE 4 /* none that the problem hasn't */

/* All values are NaN at first.  Known tensors may get layouts that repeat
 * elements, unknown ones don't.  What may be float32 in a layer of 16 bits sometimes is, if
 * the flags let it. */
layer layer_make(rng *r, const convt3d_problem *p, convt3d_direction direction, int flags);
void layer_free(layer *l);

/* Whether the direction computes the tensor in this role, or reads it. */
int layer_unknown(convt3d_direction direction, oracle_role role);
int layer_known(convt3d_direction direction, oracle_role role);

/* The value as the tensor in this role holds it. */
real layer_round(const layer *l, int role, real value);

/* Puts the values into the tensor, and what it then holds into the values. */
void layer_store(layer *l, oracle_role role);

/* Makes everything that is known read-only, so that a write to it faults. */
void layer_protect(const layer *l);

/* Runs the library.  With 'packed', the weight tensor isn't passed; without
 * 'with_bias', the bias (or its gradient) isn't. */
convt3d_status layer_run(const layer *l, const convt3d_plan *plan, const convt3d_weights *packed,
                         int with_bias, convt3d_write write, const convt3d_run *run,
                         convt3d_error *err);

#endif
