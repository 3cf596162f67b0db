/* fuzz_layer: bytes as a small problem with integer data, computed by every
 * algorithm on every instruction set, which must all agree with the oracle.
 * SPDX-License-Identifier: MIT */
#include "../oracle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct input {
    const uint8_t *data;
    size_t size;
} input;

/* The next byte, or 0: every input is long enough. */
static unsigned next(input *in) {
    if (!in->size) return 0;
    in->size--;
    return *in->data++;
}

static int64_t between(input *in, int64_t low, int64_t high) {
    return low + next(in) % (high - low + 1);
}

static void read_problem(input *in, convt3d_problem *p) {
    convt3d_problem_init(p);
    p->dtype = next(in) & 1 ? CONVT3D_FLOAT64 : CONVT3D_FLOAT32;
    p->padding_mode = (convt3d_padding_mode)between(in, 0, 3);
    p->batch = between(in, 0, 2);
    p->groups = between(in, 1, 3);
    p->in_channels = p->groups * between(in, 1, 20);
    p->out_channels = p->groups * between(in, 1, 20);
    for (int a = 0; a < 3; a++) {
        p->input_size[a] = between(in, 1, a == 2 ? 40 : 6);
        p->kernel_size[a] = between(in, 1, 5);
        p->stride[a] = between(in, 1, 4);
        p->dilation[a] = between(in, 1, 4);
        p->padding_before[a] = between(in, 0, 12);
        p->padding_after[a] = between(in, 0, 12);
        p->output_padding[a] = between(in, 0, 3);
    }
}

static int unknown(convt3d_direction direction, int role) {
    return direction == CONVT3D_FORWARD          ? role == ORACLE_OUTPUT
           : direction == CONVT3D_BACKWARD_INPUT ? role == ORACLE_INPUT
                                                 : role == ORACLE_WEIGHT || role == ORACLE_BIAS;
}

/* Dense memory of the problem's type with these values; all NaN without. */
static convt3d_tensor tensor(const convt3d_problem *p, oracle_role role, const real *values) {
    int64_t shape[5], count = oracle_count(p, role);
    int rank = oracle_shape(p, role, shape);
    size_t each = p->dtype == CONVT3D_FLOAT64 ? 8 : 4;
    void *data = malloc((size_t)count * each + 1);
    if (!data) abort();
    memset(data, 0xFF, (size_t)count * each);
    for (int64_t i = 0; i < count && values; i++) {
        if (each == 8)
            ((double *)data)[i] = (double)values[i];
        else
            ((float *)data)[i] = (float)values[i];
    }
    return convt3d_tensor_dense(data, p->dtype, rank, shape);
}

static void die(const convt3d_problem *p, const convt3d_options *o, int direction,
                const char *what) {
    char text[512];
    convt3d_problem_format(p, text, sizeof text);
    fprintf(stderr, "%s, direction %d, %s %s, %d threads: %s\n", text, direction, o->algorithm,
            o->isa ? o->isa : "any isa", (int)o->threads, what);
    abort();
}

static void compare(const convt3d_problem *p, const convt3d_options *o, convt3d_direction direction,
                    const convt3d_tensor t[4], real *const expected[4]) {
    for (int role = 0; role < 4; role++) {
        int64_t count = oracle_count(p, (oracle_role)role);
        for (int64_t i = 0; i < count && unknown(direction, role); i++) {
            real got = p->dtype == CONVT3D_FLOAT64 ? (real)((double *)t[role].data)[i]
                                                   : (real)((float *)t[role].data)[i];
            if (!(got == expected[role][i])) die(p, o, direction, "differs from the oracle");
        }
    }
}

static void run(const convt3d_problem *p, const convt3d_options *o, convt3d_direction direction,
                real *const value[4], real *const expected[4]) {
    convt3d_plan *plan;
    convt3d_error err = {CONVT3D_OK, ""};
    convt3d_status status;
    convt3d_tensor t[4];
    if (convt3d_plan_create(p, direction, o, &plan, &err)) die(p, o, direction, err.text);
    for (int role = 0; role < 4; role++)
        t[role] = tensor(p, (oracle_role)role, unknown(direction, role) ? NULL : value[role]);
    if (direction == CONVT3D_FORWARD)
        status = convt3d_forward(plan, &t[ORACLE_INPUT], &t[ORACLE_WEIGHT], NULL, &t[ORACLE_BIAS],
                                 &t[ORACLE_OUTPUT], NULL, &err);
    else if (direction == CONVT3D_BACKWARD_INPUT)
        status = convt3d_backward_input(plan, &t[ORACLE_OUTPUT], &t[ORACLE_WEIGHT], NULL,
                                        &t[ORACLE_INPUT], CONVT3D_OVERWRITE, NULL, &err);
    else
        status =
            convt3d_backward_weight(plan, &t[ORACLE_INPUT], &t[ORACLE_OUTPUT], &t[ORACLE_WEIGHT],
                                    &t[ORACLE_BIAS], CONVT3D_OVERWRITE, NULL, &err);
    if (status) die(p, o, direction, err.text);
    compare(p, o, direction, t, expected);
    for (int role = 0; role < 4; role++) free(t[role].data);
    convt3d_plan_free(plan);
}

/* Small integers in no order: with at most 100,000 products, all sums are exact. */
static void fill(const convt3d_problem *p, uint32_t key, real *value[4], real *expected[4]) {
    for (int role = 0; role < 4; role++) {
        int64_t count = oracle_count(p, (oracle_role)role);
        value[role] = malloc((size_t)(count + 1) * sizeof(real));
        expected[role] = malloc((size_t)(count + 1) * sizeof(real));
        if (!value[role] || !expected[role]) abort();
        for (int64_t i = 0; i < count; i++) {
            key = key * 1664525u + 1013904223u;
            value[role][i] = expected[role][i] = (real)(key >> 28) - 8;
        }
    }
}

static void check(const convt3d_problem *p, convt3d_direction direction, int threads,
                  uint32_t key) {
    real *value[4], *expected[4];
    convt3d_options o;
    convt3d_options_init(&o);
    o.threads = threads;
    fill(p, key, value, expected);
    oracle_run(p, direction, expected);
    o.algorithm = "reference";
    run(p, &o, direction, value, expected);
    o.algorithm = "engine";
    for (int i = 0; (o.isa = convt3d_isa_name(i)); i++)
        if (convt3d_isa_supported(o.isa)) run(p, &o, direction, value, expected);
    for (int role = 0; role < 4; role++) {
        free(value[role]);
        free(expected[role]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, size};
    convt3d_problem p;
    int threads = (int)between(&in, 1, 4), direction = (int)between(&in, 0, 2);
    uint32_t key = next(&in) * 0x01010101u;
    read_problem(&in, &p);
    if (convt3d_problem_output_shape(&p, NULL, NULL) || oracle_products(&p) > 100000) return 0;
    check(&p, (convt3d_direction)direction, threads, key);
    return 0;
}
