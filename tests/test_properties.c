/* test_properties: what must be true of the layer whoever computes it, so that
 * no oracle is needed: impulses, linearity, shifts, adjoints, groups, folds.
 * SPDX-License-Identifier: MIT */
#include "material.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;

/* Runs one direction of dense tensors; what is known is l->value. */
static void compute(layer *l, int with_bias) {
    convt3d_plan *plan;
    convt3d_error err;
    for (int role = 0; role < 4; role++)
        if (layer_known(l->direction, (oracle_role)role)) layer_store(l, (oracle_role)role);
    if (convt3d_plan_create(&l->p, l->direction, NULL, &plan, &err) ||
        layer_run(l, plan, NULL, with_bias, CONVT3D_OVERWRITE, NULL, &err))
        fail_msg("%s: %s", problem_text(&l->p), err.text);
    for (int role = 0; role < 4; role++)
        if (layer_unknown(l->direction, (oracle_role)role))
            material_load(&l->tensor[role], l->value[role]);
    convt3d_plan_free(plan);
}

static layer make(rng *r, const convt3d_problem *p, convt3d_direction direction) {
    return layer_make(r, p, direction, LAYER_DENSE | LAYER_ONE_DTYPE);
}

static void fill(rng *r, layer *l, oracle_role role) {
    for (int64_t i = 0, n = oracle_count(&l->p, role); i < n; i++)
        l->value[role][i] = (real)rng_between(r, -8, 8);
}

static void zero(layer *l, oracle_role role) {
    for (int64_t i = 0, n = oracle_count(&l->p, role); i < n; i++) l->value[role][i] = 0;
}

static void wrong(const convt3d_problem *p, const char *what) {
    print_error("%s, seed %llu\n", problem_text(p), (unsigned long long)seed);
    fail_msg("%s", what);
}

/* Any problem whose results aren't rounded as they are written. */
static void exact_problem(rng *r, int64_t most_products, convt3d_problem *p) {
    random_problem(r, most_products, p);
    if (convt3d_dtype_size(p->dtype) == 2) p->dtype = CONVT3D_FLOAT32;
}

/* ---- Impulses: one input, one tap --------------------------------------- */

/* One 1 in x and one 1 in w give one 1 in y, where the formula says; in the
 * modes that fold, always exactly one. */
static void impulse(void **state) {
    (void)state;
    rng r = {seed};
    int64_t landed = 0;
    for (int turn = 0, turns = test_count(600); turn < turns; turn++) {
        convt3d_problem p;
        do random_problem(&r, 40000, &p);
        while (p.batch == 0);
        layer l = make(&r, &p, CONVT3D_FORWARD);
        int64_t x[5], w[5], y[5], at = 0, xi = 0, wi = 0, sx[5], sw[5], sy[5];
        int inside = 1;
        oracle_shape(&p, ORACLE_INPUT, sx);
        oracle_shape(&p, ORACLE_WEIGHT, sw);
        oracle_shape(&p, ORACLE_OUTPUT, sy);
        for (int a = 0; a < 5; a++) x[a] = rng_between(&r, 0, sx[a] - 1);
        for (int a = 0; a < 5; a++) w[a] = rng_between(&r, 0, sw[a] - 1);
        w[0] = x[1];
        y[0] = x[0];
        y[1] = x[1] / (p.in_channels / p.groups) * sw[1] + w[1];
        for (int a = 2; a < 5; a++) {
            y[a] = x[a] * p.stride[a - 2] - p.padding_before[a - 2] + w[a] * p.dilation[a - 2];
            if (y[a] < 0 || y[a] >= sy[a]) inside = 0;
        }
        for (int a = 0; a < 5; a++) {
            xi = xi * sx[a] + x[a];
            wi = wi * sw[a] + w[a];
            at = at * sy[a] + y[a];
        }
        zero(&l, ORACLE_INPUT);
        zero(&l, ORACLE_WEIGHT);
        zero(&l, ORACLE_BIAS);
        l.value[ORACLE_INPUT][xi] = 3;
        l.value[ORACLE_WEIGHT][wi] = 5;
        compute(&l, 1);
        real total = 0;
        for (int64_t i = 0; i < oracle_count(&p, ORACLE_OUTPUT); i++)
            total += l.value[ORACLE_OUTPUT][i];
        if (inside && l.value[ORACLE_OUTPUT][at] != 15) wrong(&p, "not where the formula says");
        if (total != (inside || p.padding_mode != CONVT3D_ZEROS ? 15 : 0)) wrong(&p, "not once");
        landed += inside;
        layer_free(&l);
    }
    assert_true(landed * 4 > test_count(600));
}

/* ---- Linearity, adjoints ------------------------------------------------ */

/* In each operand: layer(a + 2b) = layer(a) + 2 layer(b), with integers. */
static void linearity(void **state) {
    (void)state;
    rng r = {seed + 1};
    for (int turn = 0, turns = test_count(100); turn < turns; turn++) {
        convt3d_problem p;
        exact_problem(&r, 20000, &p);
        for (int d = 0; d < 3; d++)
            for (int role = 0; role < 3; role++) {
                if (!layer_known((convt3d_direction)d, (oracle_role)role)) continue;
                int unknown = d == 0 ? ORACLE_OUTPUT : d == 1 ? ORACLE_INPUT : ORACLE_WEIGHT;
                int64_t n = oracle_count(&p, (oracle_role)role);
                int64_t m = oracle_count(&p, (oracle_role)unknown);
                layer l[3];
                l[0] = make(&r, &p, (convt3d_direction)d);
                for (int other = 0; other < 4; other++) fill(&r, &l[0], (oracle_role)other);
                for (int k = 1; k < 3; k++) {
                    l[k] = make(&r, &p, (convt3d_direction)d);
                    for (int other = 0; other < 4; other++)
                        memcpy(l[k].value[other], l[0].value[other],
                               (size_t)oracle_count(&p, (oracle_role)other) * sizeof(real));
                }
                fill(&r, &l[1], (oracle_role)role);
                for (int64_t i = 0; i < n; i++)
                    l[2].value[role][i] = l[0].value[role][i] + 2 * l[1].value[role][i];
                for (int k = 0; k < 3; k++) compute(&l[k], 0);
                for (int64_t i = 0; i < m; i++)
                    if (l[2].value[unknown][i] !=
                        l[0].value[unknown][i] + 2 * l[1].value[unknown][i])
                        wrong(&p, "not linear");
                for (int k = 0; k < 3; k++) layer_free(&l[k]);
            }
    }
}

static real dot(const real *a, const real *b, int64_t count) {
    real sum = 0;
    for (int64_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* <forward(x, w), dy> = <x, backward_input(dy, w)> = <w, backward_weight(x, dy)>,
 * and the bias likewise: exact with integers. */
static void adjoints(void **state) {
    (void)state;
    rng r = {seed + 2};
    int64_t nonzero = 0;
    int turns = test_count(400);
    for (int turn = 0; turn < turns; turn++) {
        convt3d_problem p;
        exact_problem(&r, 40000, &p);
        layer l[3];
        for (int d = 0; d < 3; d++) {
            l[d] = make(&r, &p, (convt3d_direction)d);
            for (int role = 0; role < 4; role++) {
                int64_t n = oracle_count(&p, (oracle_role)role);
                if (d == 0)
                    fill(&r, &l[0], (oracle_role)role);
                else
                    memcpy(l[d].value[role], l[0].value[role], (size_t)n * sizeof(real));
            }
        }
        int64_t n[4];
        for (int role = 0; role < 4; role++) n[role] = oracle_count(&p, (oracle_role)role);
        compute(&l[0], 0);
        compute(&l[1], 0);
        compute(&l[2], 1);
        const real *x = l[2].value[ORACLE_INPUT], *dy = l[1].value[ORACLE_OUTPUT];
        const real *w = l[0].value[ORACLE_WEIGHT];
        real forward = dot(l[0].value[ORACLE_OUTPUT], dy, n[ORACLE_OUTPUT]);
        if (forward != dot(x, l[1].value[ORACLE_INPUT], n[ORACLE_INPUT]))
            wrong(&p, "backward_input isn't the adjoint");
        if (forward != dot(w, l[2].value[ORACLE_WEIGHT], n[ORACLE_WEIGHT]))
            wrong(&p, "backward_weight isn't the adjoint");
        real bias = 0, sums = 0;
        for (int64_t i = 0; i < n[ORACLE_OUTPUT]; i++) sums += dy[i];
        for (int64_t i = 0; i < n[ORACLE_BIAS]; i++) bias += l[2].value[ORACLE_BIAS][i];
        if (bias != sums) wrong(&p, "the bias gradient isn't the sum");
        nonzero += forward != 0;
        for (int d = 0; d < 3; d++) layer_free(&l[d]);
    }
    assert_true(nonzero * 10 > turns * 8);
}

/* ---- Shifts and folds --------------------------------------------------- */

/* Along one axis: the input one sample further is the output one stride
 * further, wherever both are inside and nothing is folded. */
static void shift_by_one_is_shift_by_stride(void **state) {
    (void)state;
    rng r = {seed + 3};
    int64_t compared = 0;
    for (int turn = 0, turns = test_count(200); turn < turns; turn++) {
        convt3d_problem p;
        random_problem(&r, 40000, &p);
        int a = (int)rng_between(&r, 0, 2);
        p.padding_mode = CONVT3D_ZEROS;
        layer l[2] = {make(&r, &p, CONVT3D_FORWARD), make(&r, &p, CONVT3D_FORWARD)};
        fill(&r, &l[0], ORACLE_INPUT);
        fill(&r, &l[0], ORACLE_WEIGHT);
        int64_t in = p.input_size[a], out = oracle_output_size(&p, a), inner = 1, outer = 1;
        for (int b = a + 1; b < 3; b++)
            inner *= p.input_size[b], outer *= oracle_output_size(&p, b);
        /* The last sample falls off, so it has to be 0. */
        for (int64_t i = 0; i < oracle_count(&p, ORACLE_INPUT); i++) {
            int64_t at = i / inner % in;
            if (at == in - 1) l[0].value[ORACLE_INPUT][i] = 0;
            l[1].value[ORACLE_INPUT][i] = at ? l[0].value[ORACLE_INPUT][i - inner] : 0;
        }
        memcpy(l[1].value[ORACLE_WEIGHT], l[0].value[ORACLE_WEIGHT],
               (size_t)oracle_count(&p, ORACLE_WEIGHT) * sizeof(real));
        compute(&l[0], 0);
        compute(&l[1], 0);
        for (int64_t i = 0; i < oracle_count(&p, ORACLE_OUTPUT); i++) {
            if (i / outer % out + p.stride[a] >= out) continue;
            if (l[1].value[ORACLE_OUTPUT][i + p.stride[a] * outer] != l[0].value[ORACLE_OUTPUT][i])
                wrong(&p, "shifted differently");
            compared++;
        }
        for (int k = 0; k < 2; k++) layer_free(&l[k]);
    }
    assert_true(compared > 1000);
}

/* Folds the border of axis 'a' of dense (rows, full, inner) memory onto the
 * part that is kept: the meaning of the padding modes, on whole arrays. */
static real *fold_axis(const real *from, int64_t rows, int64_t full, int64_t inner, int64_t before,
                       int64_t after, convt3d_padding_mode mode) {
    int64_t out = full - before - after;
    real *to = calloc((size_t)(rows * out * inner) + 1, sizeof *to);
    for (int64_t row = 0; row < rows; row++)
        for (int64_t j = 0; j < full; j++) {
            int64_t o = j - before, low = o < 0, high = o >= out;
            if (mode == CONVT3D_ZEROS && (low || high)) continue;
            if (mode == CONVT3D_CIRCULAR) o += low ? out : high ? -out : 0;
            if (mode == CONVT3D_REFLECT) o = low ? -o : high ? 2 * out - 2 - o : o;
            if (mode == CONVT3D_REPLICATE) o = low ? 0 : high ? out - 1 : o;
            for (int64_t i = 0; i < inner; i++)
                to[(row * out + o) * inner + i] += from[(row * full + j) * inner + i];
        }
    return to;
}

/* A padded layer is the unpadded one, folded axis by axis, in any order. */
static void padding_is_a_fold_of_the_full_result(void **state) {
    (void)state;
    rng r = {seed + 4};
    for (int turn = 0, turns = test_count(300); turn < turns; turn++) {
        convt3d_problem p, full;
        exact_problem(&r, 20000, &p);
        full = p;
        memset(full.padding_before, 0, sizeof full.padding_before);
        memset(full.padding_after, 0, sizeof full.padding_after);
        layer l = make(&r, &p, CONVT3D_FORWARD), m = make(&r, &full, CONVT3D_FORWARD);
        for (int role = 0; role < 2; role++) {
            fill(&r, &l, (oracle_role)role);
            memcpy(m.value[role], l.value[role],
                   (size_t)oracle_count(&p, (oracle_role)role) * sizeof(real));
        }
        compute(&l, 0);
        compute(&m, 0);
        int64_t size[3];
        for (int a = 0; a < 3; a++) size[a] = oracle_output_size(&full, a);
        real *folded = m.value[ORACLE_OUTPUT];
        for (int a = 0; a < 3; a++) {
            int64_t rows = p.batch * p.out_channels, inner = 1;
            for (int b = 0; b < a; b++) rows *= size[b];
            for (int b = a + 1; b < 3; b++) inner *= size[b];
            real *next = fold_axis(folded, rows, size[a], inner, p.padding_before[a],
                                   p.padding_after[a], p.padding_mode);
            if (a) free(folded);
            folded = next;
            size[a] = oracle_output_size(&p, a);
        }
        for (int64_t i = 0; i < oracle_count(&p, ORACLE_OUTPUT); i++)
            if (folded[i] != l.value[ORACLE_OUTPUT][i]) wrong(&p, "not the folded full result");
        free(folded);
        layer_free(&l);
        layer_free(&m);
    }
}

/* ---- Parts that make a whole -------------------------------------------- */

/* Copies group 'g' of a tensor: its channels, or its rows of the weight. */
static void copy_group(const layer *from, layer *to, oracle_role role, int64_t g) {
    int64_t shape[5], inner = 1, outer = role == ORACLE_WEIGHT ? 1 : from->p.batch;
    oracle_shape(&to->p, role, shape);
    int64_t channels = role == ORACLE_WEIGHT ? shape[0] : shape[1];
    for (int a = role == ORACLE_WEIGHT ? 1 : 2; a < 5; a++) inner *= shape[a];
    int64_t whole = channels * from->p.groups;
    for (int64_t n = 0; n < outer; n++)
        memcpy(to->value[role] + n * channels * inner,
               from->value[role] + (n * whole + g * channels) * inner,
               (size_t)(channels * inner) * sizeof(real));
}

/* A layer in groups is one layer per group, side by side, in all directions. */
static void groups_are_layers_side_by_side(void **state) {
    (void)state;
    rng r = {seed + 5};
    int seen = 0;
    for (int turn = 0, turns = test_count(300); turn < turns; turn++) {
        convt3d_problem p, part;
        random_problem(&r, 20000, &p);
        if (p.groups == 1 || p.batch == 0) continue;
        seen++;
        part = p;
        part.groups = 1;
        part.in_channels /= p.groups;
        part.out_channels /= p.groups;
        for (int d = 0; d < 3; d++) {
            layer l = make(&r, &p, (convt3d_direction)d);
            for (int role = 0; role < 3; role++) fill(&r, &l, (oracle_role)role);
            compute(&l, 0);
            for (int64_t g = 0; g < p.groups; g++) {
                layer m = make(&r, &part, (convt3d_direction)d), want = make(&r, &part, 0);
                for (int role = 0; role < 3; role++) copy_group(&l, &m, (oracle_role)role, g);
                for (int role = 0; role < 3; role++) copy_group(&l, &want, (oracle_role)role, g);
                compute(&m, 0);
                for (int role = 0; role < 3; role++)
                    for (int64_t i = 0; i < oracle_count(&part, (oracle_role)role); i++)
                        if (m.value[role][i] != want.value[role][i])
                            wrong(&p, "a group isn't a layer of its own");
                layer_free(&m);
                layer_free(&want);
            }
            layer_free(&l);
        }
    }
    assert_true(seen * 10 > test_count(300) * 2);
}

/* Any split of the batch gives the same bytes, and so does a sample without a
 * batch axis.  Real numbers: rounding must agree as well. */
static void batches_split_into_the_same_bytes(void **state) {
    (void)state;
    rng r = {seed + 6};
    for (int turn = 0, turns = test_count(150); turn < turns; turn++) {
        convt3d_problem p, one;
        random_problem(&r, 20000, &p);
        p.batch = rng_between(&r, 2, 5);
        one = p;
        one.batch = 1;
        for (int d = 0; d < 2; d++) {
            int known = d == 0 ? ORACLE_INPUT : ORACLE_OUTPUT, unknown = 2 - known;
            layer l = make(&r, &p, (convt3d_direction)d);
            for (int role = 0; role < 4; role++)
                for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
                    l.value[role][i] = rng_normal(&r);
            compute(&l, 1);
            int64_t in = oracle_count(&one, (oracle_role)known);
            int64_t out = oracle_count(&one, (oracle_role)unknown);
            for (int64_t n = 0; n < p.batch; n++) {
                int flags =
                    LAYER_DENSE | LAYER_ONE_DTYPE | (rng_chance(&r, 50) ? LAYER_UNBATCHED : 0);
                layer m = layer_make(&r, &one, (convt3d_direction)d, flags);
                for (int role = 1; role < 4; role += 2)
                    memcpy(m.value[role], l.value[role],
                           (size_t)oracle_count(&p, (oracle_role)role) * sizeof(real));
                memcpy(m.value[known], l.value[known] + n * in, (size_t)in * sizeof(real));
                compute(&m, 1);
                size_t each = convt3d_dtype_size(p.dtype);
                if (memcmp(m.tensor[unknown].tensor.data,
                           (char *)l.tensor[unknown].tensor.data + (size_t)(n * out) * each,
                           (size_t)out * each))
                    wrong(&p, "a part of the batch differs");
                layer_free(&m);
            }
            layer_free(&l);
        }
    }
}

/* An empty batch: nothing to compute, gradients of zero, or unchanged sums. */
static void empty_batches(void **state) {
    (void)state;
    rng r = {seed + 7};
    for (int turn = 0; turn < 50; turn++) {
        convt3d_problem p;
        random_problem(&r, 20000, &p);
        p.batch = 0;
        for (int d = 0; d < 3; d++) {
            layer l = make(&r, &p, (convt3d_direction)d);
            fill(&r, &l, ORACLE_WEIGHT);
            fill(&r, &l, ORACLE_BIAS);
            compute(&l, d != 1);
            if (d == 2)
                for (int role = 1; role < 4; role += 2)
                    for (int64_t i = 0; i < oracle_count(&p, (oracle_role)role); i++)
                        if (l.value[role][i] != 0) wrong(&p, "gradient of nothing isn't 0");
            layer_free(&l);
        }
    }
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(impulse),
        cmocka_unit_test(linearity),
        cmocka_unit_test(adjoints),
        cmocka_unit_test(shift_by_one_is_shift_by_stride),
        cmocka_unit_test(padding_is_a_fold_of_the_full_result),
        cmocka_unit_test(groups_are_layers_side_by_side),
        cmocka_unit_test(batches_split_into_the_same_bytes),
        cmocka_unit_test(empty_batches),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("properties", tests, NULL, NULL);
}
