/* test_module_calls: calls of a module that must be refused without a trace.
 * SPDX-License-Identifier: MIT */
#include "golden.h"
#include "module.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

/* With two threads anywhere, since scratch grows with their number. */
static convt3d_module *make_module(const char *text) {
    convt3d_problem p;
    convt3d_module *module = NULL;
    convt3d_options options;
    convt3d_error err;
    convt3d_options_init(&options);
    options.threads = 2;
    if (convt3d_problem_parse(text, &p, NULL, 0, &err) ||
        convt3d_module_create(&p, &options, &module, &err))
        fail_msg("%s: %s", text, err.text);
    return module;
}

static size_t bytes_of(const convt3d_tensor *t) {
    size_t bytes = t->dtype == CONVT3D_FLOAT32 ? 4 : 8;
    for (int i = 0; i < t->rank; i++) bytes *= (size_t)t->size[i];
    return bytes;
}

static void must_contain(const char *text, const char *word) {
    if (word && !strstr(text, word)) fail_msg("no '%s' in: %s", word, text);
}

/* ---- Shapes ----------------------------------------------------------------- */

static void test_output_shape(void **state) {
    (void)state;
    convt3d_module *module = make_module("ci4co6g2i9k3s2p1");
    const int64_t batched[5] = {2, 4, 3, 4, 5}, zero[5] = {2, 4, 3, 0, 5},
                  other[5] = {2, 5, 3, 4, 5};
    const int64_t asked[3] = {6, 7, 10}, far[3] = {6, 9, 10};
    int64_t shape[5] = {-1, -1, -1, -1, -1};
    convt3d_error err;
    const int64_t plain[5] = {2, 6, 5, 7, 9}, larger[5] = {2, 6, 6, 7, 10};
    assert_int_equal(convt3d_module_output_shape(module, 5, zero, NULL, shape, &err),
                     CONVT3D_SHAPE);
    must_contain(err.text, "height");
    assert_int_equal(convt3d_module_output_shape(module, 5, other, NULL, shape, &err),
                     CONVT3D_SHAPE);
    must_contain(err.text, "must have 4");
    assert_int_equal(convt3d_module_output_shape(module, 5, batched, far, shape, &err),
                     CONVT3D_SHAPE);
    must_contain(err.text, "9 on the height axis, but must be 7 to 8");
    for (int rank = -1; rank < 8; rank++)
        if (rank != 4 && rank != 5)
            assert_int_equal(convt3d_module_output_shape(module, rank, batched, NULL, shape, &err),
                             CONVT3D_SHAPE);
    assert_int_equal(convt3d_module_output_shape(NULL, 5, batched, NULL, shape, NULL), CONVT3D_ARG);
    assert_int_equal(convt3d_module_output_shape(module, 5, NULL, NULL, shape, NULL), CONVT3D_ARG);
    assert_int_equal(convt3d_module_output_shape(module, 5, batched, NULL, NULL, NULL),
                     CONVT3D_ARG);
    for (int i = 0; i < 5; i++) assert_int_equal(shape[i], -1);
    assert_int_equal(convt3d_module_output_shape(module, 4, batched + 1, NULL, shape, &err),
                     CONVT3D_OK);
    assert_memory_equal(shape, plain + 1, 4 * sizeof *shape);
    assert_int_equal(shape[4], -1);
    assert_int_equal(convt3d_module_output_shape(module, 5, batched, asked, shape, &err),
                     CONVT3D_OK);
    assert_memory_equal(shape, larger, sizeof larger);
    convt3d_module_free(module);
}

/* ---- Runs ------------------------------------------------------------------- */

enum {
    INPUTS = 2 * 3 * 3 * 3,
    OUTPUTS = 3 * 5 * 5 * 5,
    ROOM = 4096
};

/* All tensors of a module's run, in one block: what overlaps is up to a test. */
static struct {
    convt3d_module *module;
    float block[ROOM], before[ROOM];
    convt3d_tensor x, y, dy, dx;
    convt3d_run run;
    uint64_t grads;
} call;

static uint64_t hash_grads(void) {
    const convt3d_tensor *w = convt3d_module_grad_weight(call.module);
    const convt3d_tensor *b = convt3d_module_grad_bias(call.module);
    return golden_hash(w->data, bytes_of(w)) ^ golden_hash(b->data, bytes_of(b)) << 1;
}

static void start(void) {
    static const int64_t in[5] = {1, 2, 3, 3, 3}, out[5] = {1, 3, 5, 5, 5};
    for (int i = 0; i < ROOM; i++) call.block[i] = (float)(i % 13);
    call.x = convt3d_tensor_dense(call.block, CONVT3D_FLOAT32, 5, in);
    call.dx = convt3d_tensor_dense(call.block + INPUTS, CONVT3D_FLOAT32, 5, in);
    call.y = convt3d_tensor_dense(call.block + 2 * INPUTS, CONVT3D_FLOAT32, 5, out);
    call.dy = convt3d_tensor_dense(call.block + 2 * INPUTS + OUTPUTS, CONVT3D_FLOAT32, 5, out);
    convt3d_run_init(&call.run);
    memcpy(call.before, call.block, sizeof call.before);
    call.grads = hash_grads();
}

static void refused(convt3d_status got, convt3d_status want, const convt3d_error *err,
                    const char *word) {
    if (got != want || err->status != want)
        fail_msg("%s instead of %s: %s", convt3d_status_name(got), convt3d_status_name(want),
                 err->text);
    must_contain(err->text, word);
    assert_memory_equal(call.before, call.block, sizeof call.before);
    assert_true(call.grads == hash_grads());
    start();
}

static void no_forward(convt3d_status want, const char *word) {
    convt3d_error err = {CONVT3D_OK, ""};
    convt3d_status got = convt3d_module_forward(call.module, &call.x, &call.y, &call.run, &err);
    refused(got, want, &err, word);
}

static void no_backward(convt3d_status want, const char *word) {
    convt3d_error err = {CONVT3D_OK, ""};
    convt3d_status got =
        convt3d_module_backward(call.module, &call.x, &call.dy, &call.dx, &call.run, &err);
    refused(got, want, &err, word);
}

static void test_refused_forward(void **state) {
    (void)state;
    const convt3d_tensor *weight = convt3d_module_weight(call.module);
    start();
    assert_int_equal(convt3d_module_forward(NULL, &call.x, &call.y, NULL, NULL), CONVT3D_ARG);
    assert_int_equal(convt3d_module_forward(call.module, NULL, &call.y, NULL, NULL), CONVT3D_ARG);
    assert_int_equal(convt3d_module_forward(call.module, &call.x, NULL, NULL, NULL), CONVT3D_ARG);
    call.x.rank = 3, no_forward(CONVT3D_SHAPE, "input has 3 axes");
    call.x.rank = -1, no_forward(CONVT3D_SHAPE, "input");
    call.y.rank = 6, no_forward(CONVT3D_SHAPE, "output has 6 axes");
    call.x.size[1] = 3, no_forward(CONVT3D_SHAPE, "channels");
    call.y.size[1] = 2, no_forward(CONVT3D_SHAPE, "output");
    call.y.size[0] = 2, no_forward(CONVT3D_SHAPE, "batch");
    call.x.size[3] = 0, no_forward(CONVT3D_SHAPE, "height");
    call.y.size[4] = 4, no_forward(CONVT3D_SHAPE, "width axis, but must be 5 to 6");
    call.x.dtype = CONVT3D_FLOAT64, no_forward(CONVT3D_DTYPE, "input is float64");
    call.y.dtype = (convt3d_dtype)0, no_forward(CONVT3D_DTYPE, "output");
    call.y.data = NULL, no_forward(CONVT3D_ARG, "output.data");
    call.y.data = call.block + 3, no_forward(CONVT3D_ARG, "overlaps input");
    call.y.data = weight->data, no_forward(CONVT3D_ARG, "overlaps weight");
    call.y.stride[4] = 0, no_forward(CONVT3D_ARG, "overlaps itself");
    call.run.struct_size = 8, no_forward(CONVT3D_ARG, "run.struct_size");
    call.run.threads = -1, no_forward(CONVT3D_ARG, "run.threads");
    call.run.threads = 1000000, no_forward(CONVT3D_ARG, "run.threads");
    call.run.scratch = call.block, call.run.scratch_size = 1;
    no_forward(CONVT3D_ARG, "run.scratch_size");
}

static void test_refused_backward(void **state) {
    (void)state;
    const convt3d_tensor *grad_weight = convt3d_module_grad_weight(call.module);
    start();
    assert_int_equal(convt3d_module_backward(NULL, &call.x, &call.dy, NULL, NULL, NULL),
                     CONVT3D_ARG);
    assert_int_equal(convt3d_module_backward(call.module, NULL, &call.dy, NULL, NULL, NULL),
                     CONVT3D_ARG);
    assert_int_equal(convt3d_module_backward(call.module, &call.x, NULL, NULL, NULL, NULL),
                     CONVT3D_ARG);
    call.dy.size[4] = 7, no_backward(CONVT3D_SHAPE, "width");
    call.dy.size[1] = 2, no_backward(CONVT3D_SHAPE, "grad_output");
    call.x.size[1] = 1, no_backward(CONVT3D_SHAPE, "input");
    call.x.data = NULL, no_backward(CONVT3D_ARG, "input.data");
    /* What only the second run would see, when the first has written. */
    call.dx.size[4] = 4, no_backward(CONVT3D_SHAPE, "grad_input");
    call.dx.rank = 2, no_backward(CONVT3D_SHAPE, "grad_input has 2 axes");
    call.dx.dtype = CONVT3D_FLOAT64, no_backward(CONVT3D_DTYPE, "grad_input");
    call.dx.data = NULL, no_backward(CONVT3D_ARG, "grad_input.data");
    call.dx.stride[2] = 1, no_backward(CONVT3D_ARG, "grad_input overlaps itself");
    call.dx.data = call.block + 1, no_backward(CONVT3D_ARG, "grad_input overlaps input");
    call.dx.data = call.dy.data, no_backward(CONVT3D_ARG, "grad_input overlaps grad_output");
    call.dx.data = convt3d_module_weight(call.module)->data;
    no_backward(CONVT3D_ARG, "grad_input overlaps weight");
    call.dx.data = grad_weight->data;
    no_backward(CONVT3D_ARG, "grad_input overlaps grad_weight");
    call.x.data = grad_weight->data, no_backward(CONVT3D_ARG, "grad_weight overlaps input");
    call.run.struct_size = 0, no_backward(CONVT3D_ARG, "run.struct_size");
    call.run.threads = -7, no_backward(CONVT3D_ARG, "run.threads");
    call.run.threads = CONVT3D_MAX_THREADS + 1, no_backward(CONVT3D_ARG, "run.threads");
    call.run.scratch = call.block, call.run.scratch_size = 1;
    no_backward(CONVT3D_ARG, "run.scratch_size");
}

/* Scratch must do for both runs of a backward call, whichever needs more. */
static void check_scratch(const char *text) {
    static char scratch[1 << 20];
    convt3d_module *module = make_module(text);
    const convt3d_problem *p = convt3d_module_layer(module);
    const convt3d_tensor *grad = convt3d_module_grad_weight(module);
    const convt3d_latest *latest = module->latest;
    const int64_t *i = p->input_size;
    const int64_t in[5] = {1, p->in_channels, i[0], i[1], i[2]};
    int64_t out[5];
    convt3d_error err;
    convt3d_run run;
    convt3d_run_init(&run);
    start();
    assert_int_equal(convt3d_problem_output_shape(p, out, NULL), CONVT3D_OK);
    call.x = convt3d_tensor_dense(call.block, CONVT3D_FLOAT32, 5, in);
    call.dx = convt3d_tensor_dense(call.block + ROOM / 4, CONVT3D_FLOAT32, 5, in);
    call.dy = convt3d_tensor_dense(call.block + ROOM / 2, CONVT3D_FLOAT32, 5, out);
    run.scratch = scratch;
    run.scratch_size = sizeof scratch;
    uint64_t zero = golden_hash(grad->data, bytes_of(grad));
    if (convt3d_module_backward(module, &call.x, &call.dy, &call.dx, &run, &err))
        fail_msg("%s: %s", text, err.text);
    assert_true(zero != golden_hash(grad->data, bytes_of(grad)));
    size_t weight = convt3d_plan_scratch_size(latest[CONVT3D_BACKWARD_WEIGHT].plan, 0, 0);
    size_t input = convt3d_plan_scratch_size(latest[CONVT3D_BACKWARD_INPUT].plan, 0, 0);
    run.scratch_size = (weight > input ? weight : input) - 1;
    convt3d_module_zero_grad(module);
    assert_int_equal(convt3d_module_backward(module, &call.x, &call.dy, &call.dx, &run, &err),
                     CONVT3D_ARG);
    must_contain(err.text, "run.scratch_size");
    assert_true(zero == golden_hash(grad->data, bytes_of(grad)));
    run.scratch_size++;
    if (convt3d_module_backward(module, &call.x, &call.dy, &call.dx, &run, &err))
        fail_msg("%s: %s", text, err.text);
    convt3d_module_free(module);
}

static void test_scratch(void **state) {
    (void)state;
    check_scratch("ci2co3i3k3s2p1"); /* many taps: the weight's gradient needs more */
    check_scratch("ci32co32i1k1");   /* many channels: the packed weights do */
}

/* More threads than the plans have are a wish, not an error; so is scratch of
 * one's own. */
static void test_accepted(void **state) {
    (void)state;
    static char scratch[1 << 20];
    convt3d_error err;
    start();
    call.run.threads = CONVT3D_MAX_THREADS;
    call.run.scratch = scratch;
    call.run.scratch_size = sizeof scratch;
    if (convt3d_module_forward(call.module, &call.x, &call.y, &call.run, &err) ||
        convt3d_module_backward(call.module, &call.x, &call.dy, &call.dx, &call.run, &err))
        fail_msg("%s", err.text);
    assert_true(call.grads != hash_grads());
    assert_memory_not_equal(call.before, call.block, sizeof call.before);
    assert_memory_equal(call.before, call.block, INPUTS * sizeof *call.block);
}

static void test_null(void **state) {
    (void)state;
    char text[8] = "xxxxxxx";
    convt3d_module_free(NULL);
    convt3d_module_zero_grad(NULL);
    assert_null(convt3d_module_layer(NULL));
    assert_null(convt3d_module_weight(NULL));
    assert_null(convt3d_module_bias(NULL));
    assert_null(convt3d_module_grad_weight(NULL));
    assert_null(convt3d_module_grad_bias(NULL));
    assert_int_equal(convt3d_module_describe(NULL, text, sizeof text), 0);
    assert_string_equal(text, "");
    convt3d_module *module = make_module("ci1co1i3k1nb");
    assert_null(convt3d_module_bias(module));
    assert_null(convt3d_module_grad_bias(module));
    convt3d_module_zero_grad(module);
    convt3d_module_free(module);
}

static int make_call(void **state) {
    (void)state;
    call.module = make_module("ci2co3i3k3s2p1");
    return convt3d_module_fill(call.module, CONVT3D_FILL_DEFAULT, 5, NULL) != CONVT3D_OK;
}

static int free_call(void **state) {
    (void)state;
    convt3d_module_free(call.module);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_shape),     cmocka_unit_test(test_refused_forward),
        cmocka_unit_test(test_refused_backward), cmocka_unit_test(test_scratch),
        cmocka_unit_test(test_accepted),         cmocka_unit_test(test_null),
    };
    return cmocka_run_group_tests(tests, make_call, free_call);
}
