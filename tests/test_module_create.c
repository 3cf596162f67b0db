/* test_module_create: what makes a module, its text about itself and its files.
 * SPDX-License-Identifier: MIT */
#include "golden.h"
#include "module.h"

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
    p.padding_before[1] = INT64_MIN;
    p.padding_after[1] = 0;
    p.padding_mode = CONVT3D_CIRCULAR;
    must_not_create(&p, NULL, CONVT3D_ARG, "padding");
    p.padding_before[1] = 0;
    p.kernel_size[1] = INT64_MIN;
    must_not_create(&p, NULL, CONVT3D_SHAPE, "kernel_size");
    p.kernel_size[1] = 2;
    p.dilation[1] = INT64_MIN;
    must_not_create(&p, NULL, CONVT3D_ARG, "dilation");
}

/* The options hold for every later plan, and the strings in them needn't live on. */
static void test_options(void **state) {
    (void)state;
    convt3d_problem p = parse("ci4co6g2i5k3s2p1");
    convt3d_module *module;
    convt3d_options options;
    char isa[] = "generic", algorithm[] = "reference", text[1024];
    convt3d_error err;
    convt3d_options_init(&options);
    options.threads = 1;
    options.isa = isa;
    options.algorithm = algorithm;
    if (convt3d_module_create(&p, &options, &module, &err)) fail_msg("%s", err.text);
    memset(isa, 'x', strlen(isa));
    memset(algorithm, 'x', strlen(algorithm));
    memset(&options, 0xff, sizeof options);
    float x[4] = {1, 2, 3, 4}, y[6];
    const int64_t in[4] = {4, 1, 1, 1}, out[4] = {6, 1, 1, 1};
    convt3d_tensor X = convt3d_tensor_dense(x, CONVT3D_FLOAT32, 4, in);
    convt3d_tensor Y = convt3d_tensor_dense(y, CONVT3D_FLOAT32, 4, out);
    if (convt3d_module_forward(module, &X, &Y, NULL, &err)) fail_msg("%s", err.text);
    convt3d_plan_describe(module->latest[CONVT3D_FORWARD].plan, text, sizeof text);
    must_contain(text, "i1");
    must_contain(text, "isa: generic");
    must_contain(text, "algorithm: reference");
    must_contain(text, "threads: 1\n");
    convt3d_module_free(module);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_describe), cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_create),   cmocka_unit_test(test_create_unknown),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
