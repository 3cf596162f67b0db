/* test_activated: layers that end in an activation: what forward makes of a layer
 * with one is f of what it makes of the layer without, at every position, in every
 * memory layout; and it is what PyTorch computes.
 * SPDX-License-Identifier: MIT */
#include "formula.h"
#include "golden.h"
#include "material.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;
static int64_t compared;

#define SLOPE 0.2

/* ---- Against the layer without ---------------------------------------------- */

static convt3d_options options_of(const char *isa, int32_t threads, int activation) {
    convt3d_options o;
    convt3d_options_init(&o);
    o.isa = isa;
    o.algorithm = isa ? NULL : "reference";
    o.threads = threads;
    o.activation = (convt3d_activation)activation;
    o.negative_slope = SLOPE;
    return o;
}

static void run(layer *l, const convt3d_options *o, int with_bias) {
    convt3d_plan *plan;
    convt3d_error err;
    if (l->tensor[ORACLE_OUTPUT].memory.size)
        memset(l->tensor[ORACLE_OUTPUT].memory.data, 0xFF, l->tensor[ORACLE_OUTPUT].memory.size);
    if (convt3d_plan_create(&l->p, CONVT3D_FORWARD, o, &plan, &err) ||
        layer_run(l, plan, NULL, with_bias, CONVT3D_OVERWRITE, NULL, &err))
        fail_msg("%s: %s", problem_text(&l->p), err.text);
    convt3d_plan_free(plan);
    assert_true(material_gaps_untouched(&l->tensor[ORACLE_OUTPUT]));
    material_load(&l->tensor[ORACLE_OUTPUT], l->value[ORACLE_OUTPUT]);
}

/* conv + bias before it is rounded to 16 bits is what the layer of float32 makes of the same
 * numbers. */
static void run_plain(layer *l, const convt3d_options *o, int with_bias, real *x) {
    const size_t bytes = (size_t)oracle_count(&l->p, ORACLE_OUTPUT) * sizeof *x;
    rng r = {seed};
    convt3d_problem p = l->p;
    if (convt3d_dtype_size(p.dtype) > 2) {
        run(l, o, with_bias);
        memcpy(x, l->value[ORACLE_OUTPUT], bytes);
        return;
    }
    p.dtype = CONVT3D_FLOAT32;
    layer wide = layer_make(&r, &p, CONVT3D_FORWARD, LAYER_DENSE);
    for (int role = 0; role < 4; role++) {
        if (!layer_known(CONVT3D_FORWARD, (oracle_role)role)) continue;
        memcpy(wide.value[role], l->value[role],
               (size_t)oracle_count(&p, (oracle_role)role) * sizeof *x);
        layer_store(&wide, (oracle_role)role);
    }
    run(&wide, o, with_bias);
    memcpy(x, wide.value[ORACLE_OUTPUT], bytes);
    layer_free(&wide);
}

/* 'isa' NULL is the reference, which rounds conv + bias as the engine does but
 * once for the sum. */
static void judge(layer *l, const char *isa, int activation, int with_bias) {
    const int64_t count = oracle_count(&l->p, ORACLE_OUTPUT);
    const convt3d_activation f = (convt3d_activation)activation;
    const convt3d_options plain = options_of(isa, 2, CONVT3D_ACTIVATION_NONE);
    const convt3d_options with = options_of(isa, 2, activation);
    real *x = malloc((size_t)(count + 1) * sizeof *x);
    run_plain(l, &plain, with_bias, x);
    run(l, &with, with_bias);
    for (int64_t i = 0; i < count; i++) {
        const real y = l->value[ORACLE_OUTPUT][i];
        const real want = formula(f, SLOPE, x[i]);
        const real error = formula_error(f, SLOPE, x[i], y, l->p.dtype);
        /* Nothing that follows f may make a +0 of its -0. */
        int sign = y != 0 || !signbit(y) == !signbit(want);
        if (!sign || !(error <= formula_bound(f, want, l->p.dtype)))
            fail_msg("%s, %s on %s: element %lld is %Lg, but f(%Lg) is %Lg", problem_text(&l->p),
                     convt3d_activation_name(f), isa ? isa : "reference", (long long)i, y, x[i],
                     want);
    }
    compared += count;
    free(x);
}

static void judge_isas(layer *l, int activation, int with_bias) {
    for (int i = 0; convt3d_isa_name(i); i++)
        if (convt3d_isa_supported(convt3d_isa_name(i)))
            judge(l, convt3d_isa_name(i), activation, with_bias);
}

/* Values from where the functions bend to where they don't. */
static void fill(rng *r, layer *l) {
    static const double scale[4] = {
        [ORACLE_INPUT] = 1.5, [ORACLE_WEIGHT] = 0.7, [ORACLE_BIAS] = 10};
    for (int role = 0; role < 4; role++) {
        if (!layer_known(l->direction, (oracle_role)role)) continue;
        for (int64_t i = 0; i < oracle_count(&l->p, (oracle_role)role); i++)
            l->value[role][i] = rng_normal(r) * scale[role];
        layer_store(l, (oracle_role)role);
    }
}

static const char *const shapes[] = {
    "n3ci5co7i3x4x9k3s2p1",         /* two lanes */
    "n2ci3co37i2x3x5k2s3",          /* holes on every axis; many channels */
    "n5ci2co6g2i2x2x17k1s4op3",     /* more holes than taps reach */
    "n2ci3co5i3x2x4k2x3x1s1x1x9p0", /* holes, and a stride beyond the teeth */
    "n33ci2co3i2x3x8k3x2x2s1x2x3",  /* a run of samples, with holes */
    "n2ci3co4i3x4x5k3s1x2x2p1mreflect",
    "n9ci2co3i3x3x4k2x3x2s1x1x4p0x1x1mcircular", /* folded, with holes */
    "n2ci2co3i3x4x5k3s2p1x0x2x1x1x0mreplicate",
    "n1ci3co2i2x3x4k3x3x2s2x1x3p1x1x0mreflect", /* folded in depth and height alone */
    "n0ci2co3i4k3s2",
    "n2ci17co9i2x3x5k2s2",
};

static void every_activation_everywhere(void **state) {
    (void)state;
    rng r = {seed + 1};
    static const layout layouts[] = {LAYOUT_DENSE, LAYOUT_CHANNELS_LAST, LAYOUT_REVERSED,
                                     LAYOUT_NEGATIVE, LAYOUT_SLICE};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        convt3d_problem p;
        convt3d_error err;
        if (convt3d_problem_parse(shapes[s], &p, NULL, 0, &err)) fail_msg("%s", err.text);
        for (int i = 0; i < 5 * 4; i++) {
            if (test_count(100) < 100 && (i + (int)s) % 7) continue;
            p.dtype = (convt3d_dtype)(1 + i % 4);
            layer l = layer_make(&r, &p, CONVT3D_FORWARD, LAYER_DENSE);
            material_free(&l.tensor[ORACLE_OUTPUT]);
            l.tensor[ORACLE_OUTPUT] =
                material_make(&r, &p, p.dtype, ORACLE_OUTPUT, layouts[i / 4], 0);
            fill(&r, &l);
            for (int a = 1 + (int)(s + (size_t)i / 4) % 2; a < ACTIVATIONS; a += 2)
                judge_isas(&l, a, (a + i) % 3 != 0);
            if (i < 4) judge(&l, NULL, 1 + (int)s % (ACTIVATIONS - 1), 1);
            layer_free(&l);
        }
    }
    assert_true(compared > 1000 * test_count(100));
}

/* A run of samples whose rows are too long to be computed in one go. */
static void rows_in_strips(void **state) {
    (void)state;
    rng r = {seed + 4};
    convt3d_problem p;
    if (convt3d_problem_parse("n40ci96co3i1x1x300k1x1x2s1x1x3", &p, NULL, 0, NULL)) fail();
    layer l = layer_make(&r, &p, CONVT3D_FORWARD, LAYER_DENSE);
    material_free(&l.tensor[ORACLE_OUTPUT]);
    l.tensor[ORACLE_OUTPUT] = material_make(&r, &p, p.dtype, ORACLE_OUTPUT, LAYOUT_REVERSED, 0);
    fill(&r, &l);
    judge_isas(&l, CONVT3D_ACTIVATION_SIGMOID, 1);
    layer_free(&l);
}

static void random_layers(void **state) {
    (void)state;
    rng r = {seed + 2};
    for (int i = 0; i < test_count(200); i++) {
        convt3d_problem p;
        random_problem(&r, 10000, &p);
        layer l = layer_make(&r, &p, CONVT3D_FORWARD, 0);
        fill(&r, &l);
        const int a = (int)rng_between(&r, 1, ACTIVATIONS - 1);
        judge_isas(&l, a, p.bias);
        judge(&l, NULL, a, p.bias);
        layer_free(&l);
    }
}

/* ---- Threads, weights, modules ------------------------------------------------ */

static void same_bytes_for_any_number_of_threads(void **state) {
    (void)state;
    rng r = {seed + 3};
    for (size_t s = 0; s < 8; s++) {
        convt3d_problem p;
        if (convt3d_problem_parse(shapes[s], &p, NULL, 0, NULL)) fail();
        layer l = layer_make(&r, &p, CONVT3D_FORWARD, LAYER_DENSE);
        const size_t bytes = l.tensor[ORACLE_OUTPUT].memory.size;
        unsigned char *one = malloc(bytes + 1);
        fill(&r, &l);
        for (int a = 1; a < ACTIVATIONS; a++) {
            for (int32_t threads = 1; threads <= 7; threads += 2) {
                const convt3d_options o = options_of(convt3d_isa_name(0), threads, a);
                if (!convt3d_isa_supported(o.isa)) continue;
                run(&l, &o, 1);
                if (threads == 1) memcpy(one, l.tensor[ORACLE_OUTPUT].memory.data, bytes);
                assert_memory_equal(one, l.tensor[ORACLE_OUTPUT].memory.data, bytes);
            }
        }
        free(one);
        layer_free(&l);
    }
}

/* A module applies its options' activation, and has no gradient then. */
static void modules(void **state) {
    (void)state;
    convt3d_problem p;
    convt3d_module *module;
    convt3d_error err = {CONVT3D_OK, ""};
    const convt3d_options o = options_of(convt3d_isa_name(2), 1, CONVT3D_ACTIVATION_RELU);
    const int64_t size[5] = {1, 1, 1, 1, 3};
    float x[3] = {-2, 0, 2}, y[3], g[3] = {7, 7, 7};
    if (convt3d_problem_parse("ci1co1i1x1x3k1", &p, NULL, 0, &err)) fail_msg("%s", err.text);
    if (convt3d_module_create(&p, &o, &module, &err)) fail_msg("%s", err.text);
    *(float *)convt3d_module_weight(module)->data = 3;
    *(float *)convt3d_module_bias(module)->data = 1;
    convt3d_tensor input = convt3d_tensor_dense(x, CONVT3D_FLOAT32, 5, size);
    convt3d_tensor output = convt3d_tensor_dense(y, CONVT3D_FLOAT32, 5, size);
    convt3d_tensor grad = convt3d_tensor_dense(g, CONVT3D_FLOAT32, 5, size);
    if (convt3d_module_forward(module, &input, &output, NULL, &err)) fail_msg("%s", err.text);
    assert_true(y[0] == 0 && y[1] == 1 && y[2] == 7);
    assert_int_equal(convt3d_module_backward(module, &input, &output, &grad, NULL, &err),
                     CONVT3D_ARG);
    assert_non_null(strstr(err.text, "activation is relu"));
    assert_true(g[0] == 7 && g[2] == 7);
    assert_true(*(float *)convt3d_module_grad_weight(module)->data == 0);
    convt3d_module_free(module);
}

/* ---- PyTorch ------------------------------------------------------------------- */

typedef struct golden {
    io_safetensors *file;
    int tensors;
} golden;

/* conv is exact in PyTorch's float64; f of it there has an absolute error of a few
 * roundings, and no more here: |f'| < 1.2. */
static void judge_golden(const char *name, const convt3d_problem *p, golden *g, const char *isa,
                         int activation) {
    const char *const f = convt3d_activation_name((convt3d_activation)activation);
    const io_dtype dtype = p->dtype == CONVT3D_FLOAT64 ? IO_F64 : IO_F32;
    io_array x = golden_read(g->file, name, "input", dtype), y;
    io_array w = golden_read(g->file, name, "weight", dtype);
    io_array b = golden_read(g->file, name, "bias", dtype);
    io_array want = golden_read(g->file, name, f, IO_F64);
    convt3d_tensor X = golden_tensor(&x), W = golden_tensor(&w), B = golden_tensor(&b), Y;
    const convt3d_options o = options_of(isa, 2, activation);
    const real u = dtype == IO_F64 ? 0x1p-52L : 0x1p-23L;
    convt3d_plan *plan;
    convt3d_error err = {CONVT3D_OK, ""};
    assert_int_equal(io_array_create(dtype, want.rank, want.size, &y, NULL), CONVT3D_OK);
    Y = golden_tensor(&y);
    if (convt3d_plan_create(p, CONVT3D_FORWARD, &o, &plan, &err) ||
        convt3d_forward(plan, &X, &W, NULL, &B, &Y, NULL, &err))
        fail_msg("%s, %s: %s", name, f, err.text);
    real *got = golden_values(&y), *value = golden_values(&want);
    for (int64_t i = 0; i < golden_count(&want); i++)
        if (!(fabsl(got[i] - value[i]) <= 64 * u)) /* sums of a few products below 16 */
            fail_msg("%s, %s by %s: element %lld is %.9Lg, but PyTorch has %.9Lg", name, f,
                     isa ? isa : "reference", (long long)i, got[i], value[i]);
    free(got), free(value);
    convt3d_plan_free(plan);
    io_array_free(&x), io_array_free(&w), io_array_free(&b), io_array_free(&y);
    io_array_free(&want);
}

static void golden_layer(char *line, void *data) {
    golden *g = data;
    convt3d_problem p;
    convt3d_error err;
    char name[64];
    if (convt3d_problem_parse(line, &p, name, sizeof name, &err)) fail_msg("%s", err.text);
    for (int a = 1; a < ACTIVATIONS; a++) {
        for (int i = 0; convt3d_isa_name(i); i++)
            if (convt3d_isa_supported(convt3d_isa_name(i)))
                judge_golden(name, &p, g, convt3d_isa_name(i), a);
        judge_golden(name, &p, g, NULL, a);
    }
    g->tensors += 4 + ACTIVATIONS - 1;
}

static void as_pytorch(void **state) {
    (void)state;
    golden g = {golden_open("activation.safetensors"), 0};
    assert_true(golden_lines("activation.txt", golden_layer, &g) >= 4);
    assert_int_equal(io_safetensors_count(g.file), g.tensors);
    io_safetensors_close(g.file);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_activation_everywhere),
        cmocka_unit_test(rows_in_strips),
        cmocka_unit_test(random_layers),
        cmocka_unit_test(same_bytes_for_any_number_of_threads),
        cmocka_unit_test(modules),
        cmocka_unit_test(as_pytorch),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("activated", tests, NULL, NULL);
}
