/* test_golden: what PyTorch computes, in every direction, on every instruction
 * set and with every algorithm.
 *
 * The golden values are exact (tools/make_golden.py says how), so the bounds
 * here are the library's alone: |error| <= g(K+2)*S + (K+1)*tiny with K the
 * number of products of an output, S their sum of magnitudes and g(n) =
 * n*u/(1 - n*u).  In float64 the same sums are exact in any order, and
 * the library must give the very values.
 * SPDX-License-Identifier: MIT */
#include "golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum {
    CASES = 64,
    INPUT = 0,
    WEIGHT,
    BIAS,
    GRAD_OUTPUT,
    OUTPUT,
    GRAD_INPUT,
    GRAD_WEIGHT,
    GRAD_BIAS,
    PARTS
};

static const char *const part_names[PARTS] = {"input",  "weight",     "bias",        "grad_output",
                                              "output", "grad_input", "grad_weight", "grad_bias"};

/* One layer.  Results have their exact values, and their bounds. */
typedef struct golden {
    char name[64];
    convt3d_problem p;
    io_array part[PARTS];
    real *value[PARTS];
    real *bound[PARTS];
} golden;

static golden layers[CASES];
static int layer_count;

static int is_result(int part) {
    return part >= OUTPUT;
}

static int has(const golden *g, int part) {
    return g->p.bias || (part != BIAS && part != GRAD_BIAS);
}

/* ---- The files ------------------------------------------------------------ */

static void add_layer(char *line, void *data) {
    io_safetensors *file = data;
    convt3d_error err;
    assert_true(layer_count < CASES);
    golden *g = &layers[layer_count++];
    if (convt3d_problem_parse(line, &g->p, g->name, sizeof g->name, &err))
        fail_msg("%s: %s", line, err.text);
    for (int i = 0; i < PARTS; i++) {
        if (!has(g, i)) continue;
        int wide = is_result(i) || g->p.dtype == CONVT3D_FLOAT64;
        g->part[i] = golden_read(file, g->name, part_names[i], wide ? IO_F64 : IO_F32);
        g->value[i] = golden_values(&g->part[i]);
    }
}

/* ---- Bounds --------------------------------------------------------------- */

/* All four results by the oracle, from operands of its own type. */
static void oracle_results(const golden *g, real *const operand[PARTS], real *result[PARTS]) {
    const convt3d_problem *p = &g->p;
    oracle_forward(p, operand[INPUT], operand[WEIGHT], g->p.bias ? operand[BIAS] : NULL,
                   result[OUTPUT]);
    oracle_backward_input(p, operand[GRAD_OUTPUT], operand[WEIGHT], result[GRAD_INPUT]);
    oracle_backward_weight(p, operand[INPUT], operand[GRAD_OUTPUT], result[GRAD_WEIGHT]);
    if (g->p.bias) oracle_backward_bias(p, operand[GRAD_OUTPUT], result[GRAD_BIAS]);
}

/* Storage for every part of a layer. */
static void make_parts(const golden *g, real *parts[PARTS]) {
    memset(parts, 0, PARTS * sizeof *parts);
    for (int i = 0; i < PARTS; i++) {
        if (!has(g, i)) continue;
        parts[i] = calloc((size_t)golden_count(&g->part[i]), sizeof **parts);
        assert_non_null(parts[i]);
    }
}

static void free_parts(real *parts[PARTS]) {
    for (int i = 0; i < PARTS; i++) free(parts[i]);
}

static real gamma_of(real n, real u) {
    return n * u / (1 - n * u);
}

static void make_bounds(golden *g) {
    real *ones[PARTS], *sizes[PARTS];
    real u = g->p.dtype == CONVT3D_FLOAT32 ? 0x1p-24L : 0x1p-53L;
    real tiny = g->p.dtype == CONVT3D_FLOAT32 ? 0x1p-149L : ldexpl(1, -1074);
    make_parts(g, ones);
    make_parts(g, sizes);
    for (int i = 0; i < OUTPUT; i++) {
        for (int64_t j = 0; has(g, i) && j < golden_count(&g->part[i]); j++) {
            ones[i][j] = 1;
            sizes[i][j] = fabsl(g->value[i][j]);
        }
    }
    oracle_results(g, ones, ones);
    oracle_results(g, sizes, sizes);
    for (int i = OUTPUT; i < PARTS; i++) {
        if (!has(g, i)) continue;
        g->bound[i] = sizes[i];
        sizes[i] = NULL;
        for (int64_t j = 0; j < golden_count(&g->part[i]); j++) {
            real products = ones[i][j];
            g->bound[i][j] = gamma_of(products + 2, u) * g->bound[i][j] + (products + 1) * tiny;
        }
    }
    free_parts(ones);
    free_parts(sizes);
}

static int load_layers(void **state) {
    (void)state;
    io_safetensors *file = golden_open("layers.safetensors");
    int tensors = 0;
    golden_lines("layers.txt", add_layer, file);
    for (int i = 0; i < layer_count; i++) {
        make_bounds(&layers[i]);
        for (int j = 0; j < PARTS; j++) tensors += has(&layers[i], j);
    }
    /* What is in the file but not in the list would go untested. */
    assert_int_equal(io_safetensors_count(file), tensors);
    io_safetensors_close(file);
    return 0;
}

static int free_layers(void **state) {
    (void)state;
    for (int i = 0; i < layer_count; i++) {
        for (int j = 0; j < PARTS; j++) io_array_free(&layers[i].part[j]);
        free_parts(layers[i].value);
        free_parts(layers[i].bound);
    }
    return 0;
}

/* ---- Comparisons ---------------------------------------------------------- */

/* The list must keep what it is there for. */
static void test_coverage(void **state) {
    (void)state;
    int modes[4] = {0}, folded[4] = {0}, doubles = 0, grouped = 0, unbatched = 0, beyond = 0;
    int64_t nonzero = 0, values = 0;
    for (int i = 0; i < layer_count; i++) {
        const golden *g = &layers[i];
        const convt3d_problem *p = &g->p;
        modes[p->padding_mode]++;
        doubles += p->dtype == CONVT3D_FLOAT64;
        grouped += p->groups > 1;
        unbatched += g->part[INPUT].rank == 4;
        for (int a = 0; a < 3; a++) {
            beyond += p->output_padding[a] >= p->stride[a];
            folded[p->padding_mode] += p->padding_before[a] != p->padding_after[a];
        }
        for (int64_t j = 0; j < golden_count(&g->part[OUTPUT]); j++, values++)
            nonzero += g->value[OUTPUT][j] != 0;
    }
    assert_true(layer_count >= 40);
    for (int m = 0; m < 4; m++) assert_true(modes[m] >= 4 && folded[m] >= 3);
    assert_true(doubles >= 5 && grouped >= 5 && unbatched >= 2 && beyond >= 3);
    assert_true(nonzero * 10 > values * 9);
}

static void test_shapes(void **state) {
    (void)state;
    for (int i = 0; i < layer_count; i++) {
        const golden *g = &layers[i];
        const io_array *y = &g->part[OUTPUT];
        const int64_t *out = y->size + y->rank - 3;
        int64_t shape[5];
        convt3d_problem q = g->p;
        convt3d_error err = {CONVT3D_OK, ""};
        if (convt3d_problem_output_shape(&g->p, shape, &err)) fail_msg("%s: %s", g->name, err.text);
        assert_memory_equal(shape + 5 - y->rank, y->size, (size_t)y->rank * sizeof *shape);
        /* The other way round: this size asks for that output_padding. */
        for (int a = 0; a < 3; a++) q.output_padding[a] = 0;
        if (convt3d_problem_set_output_size(&q, out, &err)) fail_msg("%s: %s", g->name, err.text);
        assert_memory_equal(q.output_padding, g->p.output_padding, sizeof q.output_padding);
    }
}

/* The oracle judges everything else, so PyTorch judges the oracle. */
static void test_oracle(void **state) {
    (void)state;
    for (int i = 0; i < layer_count; i++) {
        const golden *g = &layers[i];
        real *result[PARTS];
        make_parts(g, result);
        oracle_results(g, g->value, result);
        for (int part = OUTPUT; part < PARTS; part++)
            for (int64_t j = 0; has(g, part) && j < golden_count(&g->part[part]); j++)
                if (result[part][j] != g->value[part][j])
                    fail_msg("%s: %s[%lld] is %Lg, but PyTorch has %Lg", g->name, part_names[part],
                             (long long)j, result[part][j], g->value[part][j]);
        free_parts(result);
    }
}

/* Compares one result of the layer's dtype with what it must be. */
static void compare(const golden *g, int part, const io_array *got, const char *how) {
    real *value = golden_values(got);
    for (int64_t j = 0; j < golden_count(got); j++) {
        real error = fabsl(value[j] - g->value[part][j]);
        real bound = g->p.dtype == CONVT3D_FLOAT64 ? 0 : g->bound[part][j];
        if (!(error <= bound))
            fail_msg("%s, %s: %s[%lld] is %.9Lg, but PyTorch has %.9Lg: error %.3Lg, bound %.3Lg",
                     g->name, how, part_names[part], (long long)j, value[j], g->value[part][j],
                     error, bound);
    }
    free(value);
}

/* A result tensor like the golden one but of the layer's dtype, full of NaN. */
static io_array make_result(const golden *g, int part) {
    io_array array;
    io_dtype dtype = g->p.dtype == CONVT3D_FLOAT32 ? IO_F32 : IO_F64;
    memset(&array, 0, sizeof array);
    const io_array *like = &g->part[part];
    assert_int_equal(io_array_create(dtype, like->rank, like->size, &array, NULL), CONVT3D_OK);
    memset(array.data, 0xff, (size_t)golden_count(like) * io_dtype_size(dtype));
    return array;
}

static convt3d_status run_direction(const golden *g, const convt3d_plan *plan,
                                    convt3d_direction direction, io_array *first, io_array *second,
                                    convt3d_error *err) {
    convt3d_tensor x = golden_tensor(&g->part[INPUT]), w = golden_tensor(&g->part[WEIGHT]);
    convt3d_tensor dy = golden_tensor(&g->part[GRAD_OUTPUT]), out = golden_tensor(first);
    convt3d_tensor b, db;
    if (g->p.bias) b = golden_tensor(&g->part[BIAS]);
    if (second) db = golden_tensor(second);
    switch (direction) {
    case CONVT3D_FORWARD:
        return convt3d_forward(plan, &x, &w, NULL, g->p.bias ? &b : NULL, &out, NULL, err);
    case CONVT3D_BACKWARD_INPUT:
        return convt3d_backward_input(plan, &dy, &w, NULL, &out, CONVT3D_OVERWRITE, NULL, err);
    case CONVT3D_BACKWARD_WEIGHT:
        break;
    }
    return convt3d_backward_weight(plan, &x, &dy, &out, second ? &db : NULL, CONVT3D_OVERWRITE,
                                   NULL, err);
}

static void check_direction(const golden *g, convt3d_direction direction,
                            const convt3d_options *options) {
    static const int results[3] = {OUTPUT, GRAD_INPUT, GRAD_WEIGHT};
    int part = results[direction], with_bias = part == GRAD_WEIGHT && g->p.bias;
    char how[128];
    convt3d_plan *plan;
    convt3d_error err = {CONVT3D_OK, ""};
    snprintf(how, sizeof how, "%s on %s", options->algorithm, options->isa);
    if (convt3d_plan_create(&g->p, direction, options, &plan, &err))
        fail_msg("%s, %s: %s", g->name, how, err.text);
    io_array first = make_result(g, part), second;
    if (with_bias) second = make_result(g, GRAD_BIAS);
    if (run_direction(g, plan, direction, &first, with_bias ? &second : NULL, &err))
        fail_msg("%s, %s: %s", g->name, how, err.text);
    compare(g, part, &first, how);
    io_array_free(&first);
    if (with_bias) {
        compare(g, GRAD_BIAS, &second, how);
        io_array_free(&second);
    }
    convt3d_plan_free(plan);
}

static void check_all(convt3d_direction direction) {
    static const char *const algorithms[] = {"engine", "reference"};
    int isas = 0;
    convt3d_options options;
    convt3d_options_init(&options);
    options.threads = 2;
    for (int i = 0; convt3d_isa_name(i); i++) {
        options.isa = convt3d_isa_name(i);
        if (!convt3d_isa_supported(options.isa)) continue;
        isas++;
        for (int a = 0; a < 2; a++) {
            options.algorithm = algorithms[a];
            for (int l = 0; l < layer_count; l++) check_direction(&layers[l], direction, &options);
        }
    }
    assert_true(isas >= 1);
}

static void test_forward(void **state) {
    (void)state;
    check_all(CONVT3D_FORWARD);
}

static void test_backward_input(void **state) {
    (void)state;
    check_all(CONVT3D_BACKWARD_INPUT);
}

static void test_backward_weight(void **state) {
    (void)state;
    check_all(CONVT3D_BACKWARD_WEIGHT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_coverage),       cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_oracle),         cmocka_unit_test(test_forward),
        cmocka_unit_test(test_backward_input), cmocka_unit_test(test_backward_weight),
    };
    return cmocka_run_group_tests(tests, load_layers, free_layers);
}
