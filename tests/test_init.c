/* test_init: how parameters start.  The default's are PyTorch's bit by bit,
 * trilinear ones enlarge a volume by interpolation, ICNR ones like nearest
 * neighbour.
 * SPDX-License-Identifier: MIT */
#include "golden.h"

#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static convt3d_module *make_module(const char *text) {
    convt3d_problem p;
    convt3d_module *module = NULL;
    convt3d_error err;
    if (convt3d_problem_parse(text, &p, NULL, 0, &err) ||
        convt3d_module_create(&p, NULL, &module, &err))
        fail_msg("%s: %s", text, err.text);
    return module;
}

static void fill(convt3d_module *module, convt3d_fill how, uint64_t seed) {
    convt3d_error err;
    if (convt3d_module_fill(module, how, seed, &err)) fail_msg("%s", err.text);
}

static size_t bytes_of(const convt3d_tensor *tensor) {
    size_t bytes = tensor->dtype == CONVT3D_FLOAT32 ? 4 : 8;
    for (int i = 0; i < tensor->rank; i++) bytes *= (size_t)tensor->size[i];
    return bytes;
}

/* ---- PyTorch's values ------------------------------------------------------ */

/* "seed hash-of-weight hash-of-bias problem" */
static void check_line(char *line, void *data) {
    int *doubles = data, at = 0;
    uint64_t seed, weight_hash, bias_hash = 0;
    char bias_text[32];
    if (sscanf(line, "%" SCNu64 " %" SCNx64 " %31s %n", &seed, &weight_hash, bias_text, &at) != 3 ||
        !at)
        fail_msg("init.txt: %s", line);
    convt3d_module *module = make_module(line + at);
    const convt3d_tensor *weight = convt3d_module_weight(module), *bias;
    bias = convt3d_module_bias(module);
    *doubles += weight->dtype == CONVT3D_FLOAT64;
    fill(module, CONVT3D_FILL_DEFAULT, seed);
    if (golden_hash(weight->data, bytes_of(weight)) != weight_hash)
        fail_msg("the weight differs from PyTorch's: %s", line);
    if (bias) {
        assert_int_equal(sscanf(bias_text, "%" SCNx64, &bias_hash), 1);
        if (golden_hash(bias->data, bytes_of(bias)) != bias_hash)
            fail_msg("the bias differs from PyTorch's: %s", line);
    } else {
        assert_string_equal(bias_text, "-");
    }
    convt3d_module_free(module);
}

static void test_default_hashes(void **state) {
    (void)state;
    int doubles = 0;
    int lines = golden_lines("init.txt", check_line, &doubles);
    assert_true(lines >= 100 && doubles * 2 == lines);
}

static void check_values(const convt3d_tensor *got, const io_array *want, const char *name) {
    assert_int_equal(golden_count(want) * (int64_t)io_dtype_size(want->dtype), bytes_of(got));
    real *value = golden_values(want);
    for (int64_t i = 0; i < golden_count(want); i++) {
        real mine = got->dtype == CONVT3D_FLOAT32 ? (real)((float *)got->data)[i]
                                                  : (real)((double *)got->data)[i];
        if (mine != value[i])
            fail_msg("%s[%lld] is %.17Lg, but PyTorch has %.17Lg", name, (long long)i, mine,
                     value[i]);
    }
    free(value);
}

/* Some values in full: a failure shows how they differ, not only that. */
static void test_default_values(void **state) {
    (void)state;
    static const struct {
        const char *name, *problem;
        uint64_t seed;
    } rows[] = {
        {"small", "ci3co4i4k3x5x2", 42},
        {"grouped", "ci6co9g3i4k1x2x3", (UINT64_C(1) << 32) + 42},
        {"pointwise", "ci7co3i4k1", 0},
        {"depthwise", "ci5co5g5i4k4nb", UINT64_MAX},
    };
    static const char *const dtypes[2] = {"float32", "float64"};
    io_safetensors *file = golden_open("init.safetensors");
    int read = 0;
    for (int i = 0; i < 8; i++) {
        char name[64], problem[64];
        snprintf(name, sizeof name, "%s_%s", rows[i / 2].name, dtypes[i % 2]);
        snprintf(problem, sizeof problem, "%s%s", rows[i / 2].problem, i % 2 ? "f64" : "");
        convt3d_module *module = make_module(problem);
        const convt3d_tensor *bias = convt3d_module_bias(module);
        io_dtype dtype = i % 2 ? IO_F64 : IO_F32;
        fill(module, CONVT3D_FILL_DEFAULT, rows[i / 2].seed);
        io_array array = golden_read(file, name, "weight", dtype);
        check_values(convt3d_module_weight(module), &array, name);
        io_array_free(&array);
        read++;
        if (bias) {
            array = golden_read(file, name, "bias", dtype);
            check_values(bias, &array, name);
            io_array_free(&array);
            read++;
        }
        convt3d_module_free(module);
    }
    assert_int_equal(io_safetensors_count(file), read);
    io_safetensors_close(file);
}

/* A state_dict as PyTorch's users save it: keys weight and bias, no metadata. */
static void test_state_dict(void **state) {
    (void)state;
    io_safetensors *file = golden_open("state_dict.safetensors");
    convt3d_module *module = make_module("ci4co6g2i3k3x2x3s2");
    const convt3d_tensor *mine[2] = {convt3d_module_weight(module), convt3d_module_bias(module)};
    static const char *const names[2] = {"weight", "bias"};
    fill(module, CONVT3D_FILL_DEFAULT, 2024);
    assert_int_equal(io_safetensors_count(file), 2);
    assert_null(io_safetensors_metadata(file, "in_channels"));
    for (int i = 0; i < 2; i++) {
        io_array array;
        convt3d_error err;
        if (io_safetensors_read(file, names[i], &array, &err)) fail_msg("%s", err.text);
        assert_int_equal(array.rank, mine[i]->rank);
        assert_memory_equal(array.size, mine[i]->size, (size_t)array.rank * sizeof *array.size);
        check_values(mine[i], &array, names[i]);
        io_array_free(&array);
    }
    io_safetensors_close(file);
    convt3d_module_free(module);
}

/* ---- Enlargements ---------------------------------------------------------- */

/* Runs a float64 module of one channel on a volume without symmetries. */
typedef struct enlarged {
    const convt3d_problem *layer;
    int64_t in[3], out[3];
    double *x, *y;
} enlarged;

static enlarged enlarge(convt3d_module *module) {
    enlarged e;
    int64_t shape[5], size[5];
    convt3d_error err;
    e.layer = convt3d_module_layer(module);
    memcpy(e.in, e.layer->input_size, sizeof e.in);
    size[0] = 1;
    size[1] = e.layer->in_channels;
    memcpy(size + 2, e.in, sizeof e.in);
    if (convt3d_module_output_shape(module, 5, size, NULL, shape, &err)) fail_msg("%s", err.text);
    memcpy(e.out, shape + 2, sizeof e.out);
    int64_t inputs = size[1] * e.in[0] * e.in[1] * e.in[2];
    e.x = malloc((size_t)inputs * sizeof *e.x);
    e.y = malloc((size_t)(shape[1] * e.out[0] * e.out[1] * e.out[2]) * sizeof *e.y);
    assert_true(e.x && e.y);
    for (int64_t i = 0; i < inputs; i++) e.x[i] = sin(1.0 + (double)(i * i % 1009));
    convt3d_tensor X = convt3d_tensor_dense(e.x, CONVT3D_FLOAT64, 5, size);
    convt3d_tensor Y = convt3d_tensor_dense(e.y, CONVT3D_FLOAT64, 5, shape);
    if (convt3d_module_forward(module, &X, &Y, NULL, &err)) fail_msg("%s", err.text);
    return e;
}

static void enlarged_free(enlarged *e) {
    free(e->x);
    free(e->y);
}

/* Input samples left and right of output 'o', clamped to the volume, and how
 * far it lies between them. */
static double between(int64_t o, int64_t stride, int64_t in, int64_t at[2]) {
    double centre = ((double)o + 0.5) / (double)stride - 0.5;
    double left = floor(centre);
    for (int j = 0; j < 2; j++) {
        at[j] = (int64_t)left + j;
        at[j] = at[j] < 0 ? 0 : at[j] >= in ? in - 1 : at[j];
    }
    return centre - left;
}

/* Channel 0 of the input, interpolated between the eight samples around o. */
static double interpolate(const enlarged *e, const int64_t o[3]) {
    int64_t at[3][2];
    double part[3], sum = 0;
    for (int a = 0; a < 3; a++) part[a] = between(o[a], e->layer->stride[a], e->in[a], at[a]);
    for (int corner = 0; corner < 8; corner++) {
        double weight = 1;
        int64_t index = 0;
        for (int a = 0; a < 3; a++) {
            int right = corner >> a & 1;
            weight *= right ? part[a] : 1 - part[a];
            index = index * e->in[a] + at[a][right];
        }
        sum += weight * e->x[index];
    }
    return sum;
}

/* Whether the border takes part in output o on some axis. */
static int near_border(const enlarged *e, const int64_t o[3]) {
    for (int a = 0; a < 3; a++)
        if (o[a] < e->layer->padding_before[a] || o[a] >= e->out[a] - e->layer->padding_before[a])
            return 1;
    return 0;
}

/* Fails where the module isn't the interpolation; returns how many outputs were
 * compared.  'border': also where the volume ends. */
static int check_interpolation(const char *text, int border) {
    convt3d_module *module = make_module(text);
    int compared = 0;
    fill(module, CONVT3D_FILL_TRILINEAR, 0);
    enlarged e = enlarge(module);
    for (int a = 0; a < 3; a++) assert_int_equal(e.out[a], e.in[a] * e.layer->stride[a]);
    int64_t o[3], at = 0;
    for (o[0] = 0; o[0] < e.out[0]; o[0]++)
        for (o[1] = 0; o[1] < e.out[1]; o[1]++)
            for (o[2] = 0; o[2] < e.out[2]; o[2]++, at++) {
                if (!border && near_border(&e, o)) continue;
                compared++;
                double want = interpolate(&e, o);
                if (!(fabs(e.y[at] - want) < 1e-14))
                    fail_msg("%s: output (%d, %d, %d) is %.17g, interpolation gives %.17g", text,
                             (int)o[0], (int)o[1], (int)o[2], e.y[at], want);
            }
    enlarged_free(&e);
    convt3d_module_free(module);
    return compared;
}

static void test_trilinear(void **state) {
    (void)state;
    /* Up to stride 3 the part beyond a border is one sample wide, and folding it
     * onto the edge sample is interpolation with clamped coordinates. */
    assert_int_equal(check_interpolation("ci1co1i3x4x5k4s2p1nbf64mreplicate", 1), 6 * 8 * 10);
    assert_int_equal(check_interpolation("ci1co1i3x4x5k5s3p1nbf64mreplicate", 1), 9 * 12 * 15);
    assert_int_equal(check_interpolation("ci1co1i3x4x5k4x1x5s2x1x3p1x0x1nbf64mreplicate", 1),
                     6 * 4 * 15);
    /* "zeros" darkens the border, and is right elsewhere. */
    assert_int_equal(check_interpolation("ci1co1i3x4x5k4s2p1nbf64", 0), 4 * 6 * 8);
    assert_int_equal(check_interpolation("ci1co1i3x4x5k8x9x4s4x5x2p2x2x1nbf64", 0), 8 * 16 * 8);
}

/* Every channel gets the same weights, the bias becomes zero, and float32 has
 * the same values where they are dyadic. */
static void test_trilinear_channels(void **state) {
    (void)state;
    convt3d_module *wide = make_module("ci1co1i3k4x8x4s2x4x2p1x2x1nbf64");
    convt3d_module *module = make_module("ci3co3g3i3k4x8x4s2x4x2p1x2x1");
    fill(wide, CONVT3D_FILL_TRILINEAR, 0);
    fill(module, CONVT3D_FILL_DEFAULT, 1);
    fill(module, CONVT3D_FILL_TRILINEAR, 0);
    const double *want = convt3d_module_weight(wide)->data;
    const float *weight = convt3d_module_weight(module)->data;
    const float *bias = convt3d_module_bias(module)->data;
    double sum = 0;
    for (int i = 0; i < 3 * 4 * 8 * 4; i++) {
        assert_true((double)weight[i] == want[i % (4 * 8 * 4)]);
        sum += want[i % (4 * 8 * 4)] / 3;
    }
    assert_true(fabs(sum - 2 * 4 * 2) < 1e-12);
    for (int i = 0; i < 3; i++) assert_true(bias[i] == 0);
    convt3d_module_free(wide);
    convt3d_module_free(module);
}

static void test_icnr(void **state) {
    (void)state;
    convt3d_module *module = make_module("ci2co3i3x4x5k2x3x1s2x3x1f64");
    fill(module, CONVT3D_FILL_ICNR, 77);
    enlarged e = enlarge(module);
    int64_t plane = e.out[0] * e.out[1] * e.out[2], steps = 0, equal = 0;
    for (int64_t c = 0; c < 3; c++)
        for (int64_t d = 0; d < e.out[0]; d++)
            for (int64_t h = 0; h < e.out[1]; h++)
                for (int64_t w = 0; w < e.out[2]; w++) {
                    const double *y = e.y + c * plane;
                    double here = y[(d * e.out[1] + h) * e.out[2] + w];
                    double first = y[(d / 2 * 2 * e.out[1] + h / 3 * 3) * e.out[2] + w];
                    assert_true(here == first);
                    if (w) steps++, equal += here == y[(d * e.out[1] + h) * e.out[2] + w - 1];
                }
    /* Blocks are one wide here, so neighbours along the width differ. */
    assert_true(steps > 0 && equal == 0);
    enlarged_free(&e);
    convt3d_module_free(module);
}

/* The values are the default's, in the order in which they are drawn. */
static void test_icnr_values(void **state) {
    (void)state;
    convt3d_module *plain = make_module("ci2co3i3k2x3x1s2x3x1");
    convt3d_module *module = make_module("ci2co3i3k2x3x1s2x3x1");
    fill(plain, CONVT3D_FILL_DEFAULT, 77);
    fill(module, CONVT3D_FILL_ICNR, 77);
    const float *drawn = convt3d_module_weight(plain)->data;
    const float *weight = convt3d_module_weight(module)->data;
    const float *bias = convt3d_module_bias(module)->data;
    for (int i = 0; i < 2 * 3 * 6; i++) assert_true(weight[i] == drawn[i / 6]);
    /* The same uniform numbers for the bias, within its own bounds: weight and
     * bias differ in the last bits of the bound. */
    for (int i = 0; i < 3; i++) assert_true(fabsf(bias[i] - drawn[6 + i]) < 1e-6f);
    convt3d_module_free(plain);
    convt3d_module_free(module);
}

/* ---- What is refused -------------------------------------------------------- */

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *problem;
        convt3d_fill how;
        const char *words[3];
    } rows[] = {
        {"ci2co2i4k4s2p1", CONVT3D_FILL_TRILINEAR, {"groups", "1", "2"}},
        {"ci2co4g2i4k4s2p1", CONVT3D_FILL_TRILINEAR, {"out_channels", "4", "equal"}},
        {"ci4co2g2i4k4s2p1", CONVT3D_FILL_TRILINEAR, {"in_channels", "4", "equal"}},
        {"ci1co1i4k4s2p1x1x1x1x2x1", CONVT3D_FILL_TRILINEAR, {"(before)", "width", "is 2"}},
        {"ci1co1i4k4x3x4s2p1", CONVT3D_FILL_TRILINEAR, {"kernel_size", "height", "must be 4"}},
        {"ci1co1i4k4s2p1x1x0", CONVT3D_FILL_TRILINEAR, {"padding", "width", "must be 1"}},
        {"ci1co1i4k4s2p1x1x1x2x1x1", CONVT3D_FILL_TRILINEAR, {"(after)", "height", "is 2"}},
        {"ci1co1i4k4s2p1op1x0x0", CONVT3D_FILL_TRILINEAR, {"output_padding", "depth", "be 0"}},
        {"ci1co1i4k4s2p1d1x2x1", CONVT3D_FILL_TRILINEAR, {"dilation", "height", "must be 1"}},
        {"ci2co2i4k2s2x3x2", CONVT3D_FILL_ICNR, {"kernel_size", "height", "must be 3"}},
        {"ci2co2i4k2s2d1x1x2", CONVT3D_FILL_ICNR, {"dilation", "width", "must be 1"}},
        {"ci2co2i4k2s2", (convt3d_fill)3, {"fill", "3", "CONVT3D_FILL_ICNR"}},
        {"ci2co2i4k2s2", (convt3d_fill)-1, {"fill", "-1", "CONVT3D_FILL_ICNR"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        convt3d_module *module = make_module(rows[i].problem);
        const convt3d_tensor *weight = convt3d_module_weight(module);
        convt3d_error err = {CONVT3D_OK, ""};
        fill(module, CONVT3D_FILL_DEFAULT, 3);
        uint64_t before = golden_hash(weight->data, bytes_of(weight));
        assert_int_equal(convt3d_module_fill(module, rows[i].how, 0, &err), CONVT3D_ARG);
        assert_int_equal(convt3d_module_fill(module, rows[i].how, 0, NULL), CONVT3D_ARG);
        assert_int_equal(err.status, CONVT3D_ARG);
        for (int j = 0; j < 3; j++)
            if (!strstr(err.text, rows[i].words[j]))
                fail_msg("%s: no '%s' in: %s", rows[i].problem, rows[i].words[j], err.text);
        assert_true(before == golden_hash(weight->data, bytes_of(weight)));
        convt3d_module_free(module);
    }
    assert_int_equal(convt3d_module_fill(NULL, CONVT3D_FILL_DEFAULT, 0, NULL), CONVT3D_ARG);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_default_hashes),     cmocka_unit_test(test_default_values),
        cmocka_unit_test(test_state_dict),         cmocka_unit_test(test_trilinear),
        cmocka_unit_test(test_trilinear_channels), cmocka_unit_test(test_icnr),
        cmocka_unit_test(test_icnr_values),        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
