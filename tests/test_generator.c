/* test_generator: one stream of random numbers, drawn from by anything in any
 * order, is PyTorch's: uniform numbers and parameters bit by bit, normal ones but
 * for rounding.
 * SPDX-License-Identifier: MIT */
#include "golden.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum {
    MOST = 1024 /* more than any step draws */
};

static convt3d_generator *make_generator(uint64_t seed) {
    convt3d_generator *generator = NULL;
    convt3d_error err;
    if (convt3d_generator_create(seed, &generator, &err)) fail_msg("%s", err.text);
    return generator;
}

static void uniform(convt3d_generator *generator, void *data, convt3d_dtype dtype, int64_t count) {
    convt3d_error err;
    if (convt3d_generator_uniform(generator, data, dtype, count, 0, 1, &err))
        fail_msg("%s", err.text);
}

static void normal(convt3d_generator *generator, void *data, convt3d_dtype dtype, int64_t count) {
    convt3d_error err;
    if (convt3d_generator_normal(generator, data, dtype, count, &err)) fail_msg("%s", err.text);
}

static convt3d_module *make_module(const char *text) {
    convt3d_problem p;
    convt3d_module *module = NULL;
    convt3d_error err;
    if (convt3d_problem_parse(text, &p, NULL, 0, &err) ||
        convt3d_module_create(&p, NULL, &module, &err))
        fail_msg("%s: %s", text, err.text);
    return module;
}

static size_t bytes_of(const convt3d_tensor *tensor) {
    size_t bytes = tensor->dtype == CONVT3D_FLOAT32 ? 4 : 8;
    for (int i = 0; i < tensor->rank; i++) bytes *= (size_t)tensor->size[i];
    return bytes;
}

/* ---- PyTorch's stream ------------------------------------------------------- */

typedef struct stream {
    convt3d_generator *generator;
    real *want[2];    /* the results of all "normal" steps in float32 and float64 */
    int64_t count[2]; /* how many there are */
    int64_t at[2];    /* how many have been compared */
    int steps[4];     /* seed, uniform, normal, module */
} stream;

static convt3d_dtype dtype_of(const char *name) {
    if (!strcmp(name, "float32")) return CONVT3D_FLOAT32;
    assert_string_equal(name, "float64");
    return CONVT3D_FLOAT64;
}

static void step_uniform(stream *s, const char *line, const char *rest) {
    double data[MOST], from, to;
    char name[16];
    int64_t count;
    uint64_t hash;
    convt3d_error err;
    if (sscanf(rest, "%15s %" SCNd64 " %lf %lf %" SCNx64, name, &count, &from, &to, &hash) != 5 ||
        count > MOST)
        fail_msg("generator.txt: %s", line);
    convt3d_dtype dtype = dtype_of(name);
    if (convt3d_generator_uniform(s->generator, data, dtype, count, from, to, &err))
        fail_msg("%s: %s", line, err.text);
    if (golden_hash(data, (size_t)count * (dtype == CONVT3D_FLOAT32 ? 4 : 8)) != hash)
        fail_msg("step %d differs from PyTorch's: %s", s->steps[1], line);
}

static void step_normal(stream *s, const char *line, const char *rest) {
    double data[MOST];
    char name[16];
    int64_t count;
    if (sscanf(rest, "%15s %" SCNd64, name, &count) != 2 || count > MOST)
        fail_msg("generator.txt: %s", line);
    convt3d_dtype dtype = dtype_of(name);
    int k = dtype == CONVT3D_FLOAT64;
    assert_true(s->at[k] + count <= s->count[k]);
    normal(s->generator, data, dtype, count);
    /* PyTorch's own float32 log, sin and cos are some ulp away from those of libm. */
    real eps = k ? (real)DBL_EPSILON : (real)FLT_EPSILON;
    for (int64_t i = 0; i < count; i++) {
        real want = s->want[k][s->at[k]++];
        real got = k ? (real)data[i] : (real)((float *)data)[i];
        if (!(fabsl(got - want) <= 4 * eps * fmaxl(1, fabsl(want))))
            fail_msg("%s: number %lld is %.17Lg, but PyTorch has %.17Lg", line, (long long)i, got,
                     want);
    }
}

static void step_module(stream *s, const char *line, const char *rest) {
    char bias_text[32];
    uint64_t weight_hash, bias_hash = 0;
    int at = 0;
    convt3d_error err;
    if (sscanf(rest, "%" SCNx64 " %31s %n", &weight_hash, bias_text, &at) != 2 || !at)
        fail_msg("generator.txt: %s", line);
    convt3d_module *module = make_module(rest + at);
    const convt3d_tensor *weight = convt3d_module_weight(module), *bias;
    bias = convt3d_module_bias(module);
    if (convt3d_module_fill_next(module, CONVT3D_FILL_DEFAULT, s->generator, &err))
        fail_msg("%s: %s", line, err.text);
    assert_int_equal(sscanf(bias_text, "%" SCNx64, &bias_hash), bias ? 1 : 0);
    if (golden_hash(weight->data, bytes_of(weight)) != weight_hash ||
        (bias && golden_hash(bias->data, bytes_of(bias)) != bias_hash))
        fail_msg("parameters differ from PyTorch's: %s", line);
    convt3d_module_free(module);
}

static void check_step(char *line, void *data) {
    stream *s = data;
    uint64_t seed;
    if (sscanf(line, "seed %" SCNu64, &seed) == 1) {
        convt3d_generator_seed(s->generator, seed);
        s->steps[0]++;
    } else if (!strncmp(line, "uniform ", 8)) {
        step_uniform(s, line, line + 8);
        s->steps[1]++;
    } else if (!strncmp(line, "normal ", 7)) {
        step_normal(s, line, line + 7);
        s->steps[2]++;
    } else if (!strncmp(line, "module ", 7)) {
        step_module(s, line, line + 7);
        s->steps[3]++;
    } else {
        fail_msg("generator.txt: %s", line);
    }
}

static void test_stream(void **state) {
    (void)state;
    static const char *const names[2] = {"float32", "float64"};
    stream s;
    memset(&s, 0, sizeof s);
    io_safetensors *file = golden_open("generator.safetensors");
    for (int k = 0; k < 2; k++) {
        io_array array = golden_read(file, names[k], "normal", k ? IO_F64 : IO_F32);
        s.count[k] = golden_count(&array);
        s.want[k] = golden_values(&array);
        io_array_free(&array);
    }
    io_safetensors_close(file);
    s.generator = make_generator(1);
    golden_lines("generator.txt", check_step, &s);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(s.at[k], s.count[k]);
        free(s.want[k]);
    }
    assert_true(s.steps[0] > 80 && s.steps[1] > 200 && s.steps[2] > 200 && s.steps[3] > 20);
    convt3d_generator_free(s.generator);
}

/* ---- What the header says beyond it ------------------------------------------ */

/* The seed of creation is a seed like any other, and a new one forgets the normal
 * number that was kept, which is the second of a pair. */
static void test_seed(void **state) {
    (void)state;
    convt3d_generator *a = make_generator(12), *b = make_generator(13);
    double pair[2], again[2], other[2];
    normal(a, pair, CONVT3D_FLOAT64, 2);
    convt3d_generator_seed(b, 12);
    normal(b, again, CONVT3D_FLOAT64, 1);
    normal(b, again + 1, CONVT3D_FLOAT64, 1);
    assert_memory_equal(pair, again, sizeof pair);
    normal(b, other, CONVT3D_FLOAT64, 1);
    convt3d_generator_seed(b, (UINT64_C(1) << 32) + 12);
    normal(b, again, CONVT3D_FLOAT64, 2);
    assert_memory_equal(pair, again, sizeof pair);
    convt3d_generator_seed(NULL, 1);
    convt3d_generator_free(a);
    convt3d_generator_free(b);
    convt3d_generator_free(NULL);
}

/* Nothing is drawn, and nothing kept is used up, where nothing is asked for. */
static void test_nothing(void **state) {
    (void)state;
    convt3d_generator *a = make_generator(5), *b = make_generator(5);
    double x[2], y[2];
    normal(a, x, CONVT3D_FLOAT64, 2);
    uniform(b, NULL, CONVT3D_FLOAT32, 0);
    normal(b, y, CONVT3D_FLOAT64, 1);
    normal(b, NULL, CONVT3D_FLOAT32, 0);
    normal(b, y + 1, CONVT3D_FLOAT64, 1);
    assert_memory_equal(x, y, sizeof x);
    convt3d_generator_free(a);
    convt3d_generator_free(b);
}

/* What rounds up to 'to' becomes 'from': with nothing between the two, all. */
static void test_bounds(void **state) {
    (void)state;
    convt3d_generator *generator = make_generator(8);
    float single[MOST];
    double dual[MOST];
    const float end = nextafterf(1, 2);
    assert_int_equal(
        convt3d_generator_uniform(generator, single, CONVT3D_FLOAT32, MOST, 1, end, NULL), 0);
    for (int i = 0; i < MOST; i++) assert_true(single[i] == 1);
    assert_int_equal(convt3d_generator_uniform(generator, dual, CONVT3D_FLOAT64, MOST, -DBL_MAX / 2,
                                               DBL_MAX / 2, NULL),
                     0);
    for (int i = 0; i < MOST; i++) assert_true(fabs(dual[i]) <= DBL_MAX / 2);
    convt3d_generator_free(generator);
}

/* What torch.rand(4) and torch.empty(4).uniform_(-0.1, 0.1) of PyTorch 2.13 give after
 * torch.manual_seed(0). */
static void test_sixteen_bits(void **state) {
    (void)state;
    static const struct {
        convt3d_dtype dtype;
        double from, to, want[4];
    } calls[] = {
        {CONVT3D_BFLOAT16, 0, 1, {0.49609375, 0.76953125, 0.08837890625, 0.1318359375}},
        {CONVT3D_FLOAT16, 0, 1, {0.496337890625, 0.76806640625, 0.0885009765625, 0.132080078125}},
        {CONVT3D_BFLOAT16,
         -0.1,
         0.1,
         {-0.0007476806640625, 0.0537109375, -0.08251953125, -0.07373046875}},
        {CONVT3D_FLOAT16,
         -0.1,
         0.1,
         {-0.0007486343383789062, 0.05364990234375, -0.082275390625, -0.0736083984375}},
    };
    for (int i = 0; i < 4; i++) {
        convt3d_generator *generator = make_generator(0);
        uint16_t half[4];
        double value[4];
        assert_int_equal(convt3d_generator_uniform(generator, half, calls[i].dtype, 4,
                                                   calls[i].from, calls[i].to, NULL),
                         0);
        convt3d_convert(value, CONVT3D_FLOAT64, half, calls[i].dtype, 4, NULL);
        for (int j = 0; j < 4; j++) assert_true(value[j] == calls[i].want[j]);
        assert_int_equal(convt3d_generator_normal(generator, half, calls[i].dtype, 4, NULL),
                         CONVT3D_DTYPE);
        convt3d_generator_free(generator);
    }
}

static void check_fill(convt3d_fill how, const char *text, int64_t draws) {
    convt3d_module *a = make_module(text), *b = make_module(text);
    const convt3d_tensor *x = convt3d_module_weight(a), *y = convt3d_module_weight(b);
    convt3d_generator *generator = make_generator(77), *plain = make_generator(77);
    float skipped[MOST], next, want;
    assert_int_equal(convt3d_module_fill(a, how, 77, NULL), CONVT3D_OK);
    assert_int_equal(convt3d_module_fill_next(b, how, generator, NULL), CONVT3D_OK);
    assert_memory_equal(x->data, y->data, bytes_of(x));
    x = convt3d_module_bias(a), y = convt3d_module_bias(b);
    assert_memory_equal(x->data, y->data, bytes_of(x));
    uniform(plain, skipped, CONVT3D_FLOAT32, draws);
    uniform(plain, &want, CONVT3D_FLOAT32, 1);
    uniform(generator, &next, CONVT3D_FLOAT32, 1);
    assert_true(next == want);
    convt3d_generator_free(generator);
    convt3d_generator_free(plain);
    convt3d_module_free(a);
    convt3d_module_free(b);
}

/* From a fresh seed both ways to fill are one, and each fill draws what it must. */
static void test_fill_next(void **state) {
    (void)state;
    check_fill(CONVT3D_FILL_DEFAULT, "ci2co3i3k2x3x1s2x3x1", 2 * 3 * 6 + 3);
    check_fill(CONVT3D_FILL_ICNR, "ci2co3i3k2x3x1s2x3x1", 2 * 3 + 3);
    check_fill(CONVT3D_FILL_TRILINEAR, "ci2co2g2i3k4s2p1", 0);
}

/* ---- What is refused ---------------------------------------------------------- */

static void check_text(const convt3d_error *err, const char *const *words) {
    for (int i = 0; i < 3 && words[i]; i++)
        if (!strstr(err->text, words[i])) fail_msg("no '%s' in: %s", words[i], err->text);
}

typedef struct refusal {
    int no_generator, no_data;
    convt3d_dtype dtype;
    int64_t count;
    double from, to;
    convt3d_status want;
    const char *words[3];
} refusal;

#define F32 CONVT3D_FLOAT32
#define F64 CONVT3D_FLOAT64
static const refusal refusals[] = {
    {1, 0, F32, 4, 0, 1, CONVT3D_ARG, {"generator", "NULL", NULL}},
    {0, 1, F32, 4, 0, 1, CONVT3D_ARG, {"data", "NULL", "4"}},
    {0, 0, F64, -1, 0, 1, CONVT3D_ARG, {"count", "-1", ">= 0"}},
    {0, 0, F64, INT64_MIN, 0, 1, CONVT3D_ARG, {"count", "-9223372036854775808", ">= 0"}},
    {0, 0, (convt3d_dtype)0, 4, 0, 1, CONVT3D_DTYPE, {"dtype", "0", "1 to 4 (convt3d_dtype)"}},
    {0, 0, (convt3d_dtype)5, 0, 0, 1, CONVT3D_DTYPE, {"dtype", "5", "1 to 4 (convt3d_dtype)"}},
    {0,
     0,
     F64,
     INT64_MAX / 8 + 1,
     0,
     1,
     CONVT3D_OVERFLOW,
     {"count", "1152921504606846976", "more than 1152921504606846975"}},
    {0, 0, F32, INT64_MAX, 0, 1, CONVT3D_OVERFLOW, {"count", "9223372036854775807", "float32"}},
    /* From here on uniform alone refuses. */
    {0, 0, F32, 4, 1, 0.5, CONVT3D_ARG, {"to is 0.5", "from, which is 1", NULL}},
    {0, 0, F32, 4, 0, 1e39, CONVT3D_ARG, {"to is 1e+39", "float32", "3.40282e+38"}},
    {0, 0, F32, 4, -1e39, 0, CONVT3D_ARG, {"from is -1e+39", "float32", "-3.40282e+38"}},
    {0, 0, F32, 4, -3e38, 3e38, CONVT3D_ARG, {"from is -3e+38", "to is 3e+38", "to - from"}},
    {0, 0, F64, 4, -DBL_MAX, 1e300, CONVT3D_ARG, {"from is -1.79769e+308", "to - from", NULL}},
    {0, 0, F64, 4, 0, HUGE_VAL, CONVT3D_ARG, {"to is inf", "1.79769e+308", NULL}},
    {0, 0, F64, 4, -HUGE_VAL, 0, CONVT3D_ARG, {"from is -inf", "1.79769e+308", NULL}},
    {0, 0, F64, 0, NAN, 0, CONVT3D_ARG, {"from is", "nan", NULL}},
    {0, 0, F32, 4, 0, NAN, CONVT3D_ARG, {"to is", "nan", NULL}},
};

static void check_refusal(const refusal *r, int bounds) {
    static const char before[] = "as it was, to the last byte here";
    convt3d_generator *generator = make_generator(3), *plain = make_generator(3);
    convt3d_generator *argument = r->no_generator ? NULL : generator;
    convt3d_error err = {CONVT3D_OK, ""};
    char bytes[sizeof before];
    double data[5], x, y;
    memcpy(data, before, sizeof before);
    void *where = r->no_data ? NULL : data;
    for (int text = 0; text < 2; text++) {
        convt3d_error *e = text ? &err : NULL;
        int got = bounds ? (int)convt3d_generator_uniform(argument, where, r->dtype, r->count,
                                                          r->from, r->to, e)
                         : (int)convt3d_generator_normal(argument, where, r->dtype, r->count, e);
        assert_int_equal(got, r->want);
    }
    assert_int_equal(err.status, r->want);
    check_text(&err, r->words);
    memcpy(bytes, data, sizeof bytes);
    assert_memory_equal(bytes, before, sizeof before);
    uniform(generator, &x, F64, 1);
    uniform(plain, &y, F64, 1);
    assert_true(x == y);
    convt3d_generator_free(generator);
    convt3d_generator_free(plain);
}

static void test_refused(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        check_refusal(&refusals[i], 1);
        if (refusals[i].from == 0 && refusals[i].to == 1) check_refusal(&refusals[i], 0);
    }
    convt3d_error err = {CONVT3D_OK, ""};
    assert_int_equal(convt3d_generator_create(1, NULL, &err), CONVT3D_ARG);
    assert_string_equal(err.text, "generator is NULL");
}

static void test_fill_refused(void **state) {
    (void)state;
    convt3d_module *module = make_module("ci2co2i4k3s2");
    convt3d_generator *generator = make_generator(3), *plain = make_generator(3);
    convt3d_error err = {CONVT3D_OK, ""};
    double x, y;
    assert_int_equal(convt3d_module_fill(module, CONVT3D_FILL_DEFAULT, 3, NULL), CONVT3D_OK);
    const convt3d_tensor *weight = convt3d_module_weight(module);
    uint64_t before = golden_hash(weight->data, bytes_of(weight));
    for (int how = 0; how < 4; how++) {
        convt3d_generator *argument = how ? generator : NULL;
        assert_int_equal(convt3d_module_fill_next(module, (convt3d_fill)how, argument, &err),
                         CONVT3D_ARG);
        static const char *const words[4] = {"generator is NULL", "groups", "an ICNR", "fill is 3"};
        check_text(&err, (const char *const[]){words[how], NULL});
    }
    assert_true(before == golden_hash(weight->data, bytes_of(weight)));
    assert_int_equal(convt3d_module_fill_next(NULL, CONVT3D_FILL_DEFAULT, generator, &err),
                     CONVT3D_ARG);
    assert_string_equal(err.text, "module is NULL");
    uniform(generator, &x, F64, 1);
    uniform(plain, &y, F64, 1);
    assert_true(x == y);
    convt3d_generator_free(generator);
    convt3d_generator_free(plain);
    convt3d_module_free(module);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream),       cmocka_unit_test(test_seed),
        cmocka_unit_test(test_nothing),      cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_sixteen_bits), cmocka_unit_test(test_fill_next),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_fill_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
