/* plans: the layer's arguments from R, and the plans of the latest shapes.
 * SPDX-License-Identifier: MIT */
#include "glue.h"

#include <stdlib.h>
#include <string.h>

enum {
    KEPT = 32
};

/* All that a plan depends on; compared byte by byte. */
typedef struct plan_key {
    convt3d_problem problem;
    int32_t direction, threads, precision;
    char environment[2][32]; /* the variables that the library reads */
} plan_key;

static struct {
    plan_key key;
    convt3d_plan *plan;
    unsigned long used;
} kept[KEPT];
static unsigned long uses;

static void read3(SEXP values, int64_t to[3]) {
    for (int a = 0; a < 3; a++) to[a] = (int64_t)REAL(values)[a];
}

/* Fields by place, in the order of layer_arguments() in R/arguments.R. */
convt3d_problem glue_problem(SEXP layer) {
    convt3d_problem p;
    convt3d_error err;
    memset(&p, 0, sizeof p); /* what lies between fields is compared too */
    convt3d_problem_init(&p);
    const double *channels = REAL(VECTOR_ELT(layer, 0)), *padding = REAL(VECTOR_ELT(layer, 3));
    p.in_channels = (int64_t)channels[0];
    p.out_channels = (int64_t)channels[1];
    p.groups = (int64_t)channels[2];
    read3(VECTOR_ELT(layer, 1), p.kernel_size);
    read3(VECTOR_ELT(layer, 2), p.stride);
    for (int a = 0; a < 3; a++) {
        p.padding_before[a] = (int64_t)padding[2 * a];
        p.padding_after[a] = (int64_t)padding[2 * a + 1];
    }
    read3(VECTOR_ELT(layer, 4), p.output_padding);
    read3(VECTOR_ELT(layer, 5), p.dilation);
    glue_check(convt3d_padding_mode_parse(CHAR(STRING_ELT(VECTOR_ELT(layer, 6), 0)),
                                          &p.padding_mode, &err),
               &err);
    return p;
}

convt3d_precision glue_precision(SEXP layer) {
    convt3d_precision precision;
    convt3d_error err;
    glue_check(convt3d_precision_parse(CHAR(STRING_ELT(VECTOR_ELT(layer, 7), 0)), &precision, &err),
               &err);
    return precision;
}

static void set_key(plan_key *key, const convt3d_problem *problem, convt3d_direction direction,
                    int threads, convt3d_precision precision) {
    static const char *const names[2] = {"CONVT3D_ISA", "CONVT3D_NUM_THREADS"};
    memset(key, 0, sizeof *key);
    memcpy(&key->problem, problem, sizeof *problem); /* with the bytes between its fields */
    key->direction = (int32_t)direction;
    key->threads = threads;
    key->precision = (int32_t)precision;
    for (int i = 0; i < 2; i++) {
        const char *value = getenv(names[i]);
        if (value) strncpy(key->environment[i], value, sizeof key->environment[i] - 1);
    }
}

/* All bytes: keys that differ between their fields alone cost a plan, no more. */
static int same_key(const void *a, const void *b) {
    return memcmp(a, b, sizeof(plan_key)) == 0;
}

const convt3d_plan *glue_plan(const convt3d_problem *problem, convt3d_direction direction,
                              int threads, convt3d_precision precision) {
    plan_key key;
    int oldest = 0;
    set_key(&key, problem, direction, threads, precision);
    uses++;
    for (int i = 0; i < KEPT; i++) {
        if (kept[i].plan && same_key(&kept[i].key, &key)) {
            kept[i].used = uses;
            return kept[i].plan;
        }
        if (kept[i].used < kept[oldest].used) oldest = i;
    }
    convt3d_options options;
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_options_init(&options);
    options.threads = threads;
    options.precision = precision;
    glue_check(convt3d_plan_create(problem, direction, &options, &plan, &err), &err);
    convt3d_plan_free(kept[oldest].plan);
    memcpy(&kept[oldest].key, &key, sizeof key);
    kept[oldest].plan = plan;
    kept[oldest].used = uses;
    return plan;
}

void glue_forget_plans(void) {
    for (int i = 0; i < KEPT; i++) {
        convt3d_plan_free(kept[i].plan);
        kept[i].plan = NULL;
    }
}
