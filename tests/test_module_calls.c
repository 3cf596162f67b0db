/* test_module_calls: a module's text, its files, and the calls that it must
 * refuse without a trace.
 * SPDX-License-Identifier: MIT */
#include "golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static convt3d_problem parse(const char *text) {
    convt3d_problem p;
    convt3d_error err;
    if (convt3d_problem_parse(text, &p, NULL, 0, &err)) fail_msg("%s: %s", text, err.text);
    return p;
}

static convt3d_module *make_module(const char *text) {
    convt3d_problem p = parse(text);
    convt3d_module *module = NULL;
    convt3d_error err;
    if (convt3d_module_create(&p, NULL, &module, &err)) fail_msg("%s", err.text);
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

/* ---- Description ------------------------------------------------------------ */

static void test_describe(void **state) {
    (void)state;
    static const struct {
        const char *problem, *text;
    } rows[] = {
        {"ci16co33i8k3x5x2s2x1x1p0x4x2",
         "ConvTranspose3d(16, 33, kernel_size=(3, 5, 2), stride=(2, 1, 1), padding=(0, 4, 2))\n"
         "  weight: (16, 33, 3, 5, 2) float32\n  bias: (33) float32\n"},
        {"ci1co2i8k1nbf64",
         "ConvTranspose3d(1, 2, kernel_size=(1, 1, 1), stride=(1, 1, 1), bias=False)\n"
         "  weight: (1, 2, 1, 1, 1) float64\n"},
        {"ci4co6g2i8k3s2op1x0x1d1x2x1mcircular",
         "ConvTranspose3d(4, 6, kernel_size=(3, 3, 3), stride=(2, 2, 2), dilation=(1, 2, 1), "
         "output_padding=(1, 0, 1), groups=2, padding_mode=circular)\n"
         "  weight: (4, 3, 3, 3, 3) float32\n  bias: (6) float32\n"},
        {"ci1co1i8k3p1x0x2x2x0x1nb",
         "ConvTranspose3d(1, 1, kernel_size=(3, 3, 3), stride=(1, 1, 1), "
         "padding=((1, 0), (2, 2), (0, 1)), bias=False)\n  weight: (1, 1, 3, 3, 3) float32\n"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        convt3d_module *module = make_module(rows[i].problem);
        size_t length = strlen(rows[i].text);
        char text[512];
        memset(text, 'x', sizeof text);
        assert_int_equal(convt3d_module_describe(module, text, sizeof text), length);
        assert_string_equal(text, rows[i].text);
        /* Cut anywhere, it ends with its zero and writes nothing beyond. */
        for (size_t size = 1; size <= length; size++) {
            memset(text, 'x', sizeof text);
            assert_int_equal(convt3d_module_describe(module, text, size), length);
            assert_int_equal(strlen(text), size - 1);
            assert_memory_equal(text, rows[i].text, size - 1);
            assert_int_equal(text[size], 'x');
        }
        assert_int_equal(convt3d_module_describe(module, NULL, 0), length);
        convt3d_module_free(module);
    }
}

/* ---- Files ------------------------------------------------------------------ */

static io_array array_of(const convt3d_tensor *t) {
    io_array array;
    memset(&array, 0, sizeof array);
    array.data = t->data;
    array.dtype = t->dtype == CONVT3D_FLOAT32 ? IO_F32 : IO_F64;
    array.rank = t->rank;
    memcpy(array.size, t->size, sizeof t->size);
    memcpy(array.stride, t->stride, sizeof t->stride);
    return array;
}

/* Saved and loaded, parameters are the same bytes. */
static void round_trip(const char *problem) {
    char path[] = "/tmp/convt3d-module-XXXXXX";
    convt3d_module *module = make_module(problem);
    const convt3d_tensor *mine[2] = {convt3d_module_weight(module), convt3d_module_bias(module)};
    io_array arrays[2] = {array_of(mine[0])};
    io_named named[2] = {{"weight", &arrays[0]}, {"bias", &arrays[1]}};
    static const char *const metadata[] = {"stride", "2,2,2"};
    int count = mine[1] ? 2 : 1;
    io_safetensors *file;
    convt3d_error err;
    if (mine[1]) arrays[1] = array_of(mine[1]);
    assert_int_equal(convt3d_module_fill(module, CONVT3D_FILL_DEFAULT, 9, NULL), CONVT3D_OK);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    if (io_safetensors_write(path, named, count, metadata, 1, &err) ||
        io_safetensors_open(path, &file, &err))
        fail_msg("%s", err.text);
    assert_int_equal(io_safetensors_count(file), count);
    assert_string_equal(io_safetensors_metadata(file, "stride"), "2,2,2");
    for (int i = 0; i < count; i++) {
        io_array back;
        if (io_safetensors_read(file, named[i].name, &back, &err)) fail_msg("%s", err.text);
        assert_int_equal(back.dtype, arrays[i].dtype);
        assert_int_equal(back.rank, mine[i]->rank);
        assert_memory_equal(back.size, mine[i]->size, (size_t)back.rank * sizeof *back.size);
        assert_memory_equal(back.data, mine[i]->data, bytes_of(mine[i]));
        io_array_free(&back);
    }
    io_safetensors_close(file);
    unlink(path);
    convt3d_module_free(module);
}

static void test_round_trip(void **state) {
    (void)state;
    round_trip("ci4co6g2i5k3x2x3s2");
    round_trip("ci3co2i5k2s2f64nb");
}

/* ---- Creation --------------------------------------------------------------- */

static void must_not_create(const convt3d_problem *layer, const convt3d_options *options,
                            convt3d_status want, const char *word) {
    int mark;
    convt3d_module *module = (convt3d_module *)&mark; /* anything but NULL */
    convt3d_error err = {CONVT3D_OK, ""};
    convt3d_status got = convt3d_module_create(layer, options, &module, &err);
    if (got != want)
        fail_msg("%s instead of %s: %s", convt3d_status_name(got), convt3d_status_name(want),
                 err.text);
    assert_int_equal(err.status, want);
    assert_null(module);
    must_contain(err.text, word);
    assert_int_equal(convt3d_module_create(layer, options, &module, NULL), want);
}

static void test_create(void **state) {
    (void)state;
    const convt3d_problem good = parse("ci4co6g2i5k3s2p1");
    convt3d_problem p = good;
    convt3d_options options;
    convt3d_options_init(&options);
    assert_int_equal(convt3d_module_create(&good, NULL, NULL, NULL), CONVT3D_ARG);
    must_not_create(NULL, NULL, CONVT3D_ARG, "layer");
    p.struct_size--;
    must_not_create(&p, NULL, CONVT3D_ARG, "struct_size");
    p = good, p.groups = 3;
    must_not_create(&p, NULL, CONVT3D_SHAPE, "divisible");
    p = good, p.kernel_size[1] = 0;
    must_not_create(&p, NULL, CONVT3D_SHAPE, "height");
    p = good, p.input_size[2] = -1;
    must_not_create(&p, NULL, CONVT3D_SHAPE, "width");
    p = good, p.dtype = (convt3d_dtype)7;
    must_not_create(&p, NULL, CONVT3D_DTYPE, "dtype");
    p = good, p.in_channels = p.out_channels = (int64_t)1 << 31, p.groups = 1;
    p.input_size[0] = p.input_size[1] = p.input_size[2] = 0;
    must_not_create(&p, NULL, CONVT3D_OVERFLOW, "weight");
    options.struct_size--;
    must_not_create(&good, &options, CONVT3D_ARG, "struct_size");
    convt3d_options_init(&options);
    options.threads = -1;
    must_not_create(&good, &options, CONVT3D_ARG, "threads");
    convt3d_options_init(&options);
    options.algorithm = "none";
    must_not_create(&good, &options, CONVT3D_ARG, "algorithm");
}

/* Input sizes of 0 are unknown: refused only if no input would do. */
static void test_create_unknown(void **state) {
    (void)state;
    static const struct {
        const char *problem;
        int64_t padding;
    } rows[] = {{"ci1co1i9k3", 40},           {"ci1co1i9k2s3mreflect", 50},
                {"ci1co1i9k1mcircular", 31},  {"ci1co1i9k5s2op1", 1},
                {"ci1co1i9k1mreplicate", 60}, {"ci1co1i9k3s7d9op8mreflect", 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        convt3d_problem p = parse(rows[i].problem);
        convt3d_module *module = NULL;
        convt3d_error err;
        for (int a = 0; a < 3; a++) {
            p.input_size[a] = 0;
            p.padding_before[a] = p.padding_after[a] = rows[i].padding;
        }
        if (convt3d_module_create(&p, NULL, &module, &err))
            fail_msg("%s with padding %d: %s", rows[i].problem, (int)rows[i].padding, err.text);
        convt3d_module_free(module);
    }
    convt3d_problem p = parse("ci1co1i9k3");
    p.input_size[1] = 0;
    p.padding_before[1] = p.padding_after[1] = INT64_MAX / 2;
    must_not_create(&p, NULL, CONVT3D_OVERFLOW, NULL);
    p.padding_before[1] = p.padding_after[1] = INT64_MAX;
    must_not_create(&p, NULL, CONVT3D_OVERFLOW, "height");
    p.padding_before[1] = -1;
    must_not_create(&p, NULL, CONVT3D_ARG, "padding");
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
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_create_unknown),
        cmocka_unit_test(test_output_shape),
        cmocka_unit_test(test_refused_forward),
        cmocka_unit_test(test_refused_backward),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_null),
    };
    return cmocka_run_group_tests(tests, make_call, free_call);
}
