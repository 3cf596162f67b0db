/* test_arguments: the layer's arguments, options and pointers, as they must not
 * be: which status, and that the message names argument, axis, value and range.
 * SPDX-License-Identifier: MIT */
#include "material.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const char *const axis_names[3] = {"depth", "height", "width"};

/* n2ci4co6g2i5x6x7k3s2p1op0: every argument has room on both sides. */
static convt3d_problem base_problem(void) {
    convt3d_problem p;
    convt3d_error err;
    if (convt3d_problem_parse("n2ci4co6g2i5x6x7k3s2p1", &p, NULL, 0, &err))
        fail_msg("%s", err.text);
    return p;
}

static void must_contain(const char *what, const char *text, const char *word) {
    if (word && !strstr(text, word)) fail_msg("%s: no '%s' in \"%s\"", what, word, text);
}

/* The same failure from the check alone and from the plan of every direction;
 * nothing is written. */
static void must_refuse(const char *what, const convt3d_problem *p, convt3d_status want,
                        convt3d_error *err) {
    int64_t shape[5] = {-1, -2, -3, -4, -5};
    *err = (convt3d_error){CONVT3D_OK, ""};
    convt3d_status got = convt3d_problem_output_shape(p, shape, err);
    if (got != want)
        fail_msg("%s: %s instead of %s (%s)", what, convt3d_status_name(got),
                 convt3d_status_name(want), err->text);
    assert_int_equal(err->status, want);
    assert_true(strlen(err->text) > 10 && !strchr(err->text, '\n'));
    for (int i = 0; i < 5; i++) assert_int_equal(shape[i], -1 - i);
    assert_int_equal(convt3d_problem_output_shape(p, NULL, NULL), want);
    for (int d = 0; d < 3; d++) {
        convt3d_plan *plan = (convt3d_plan *)&shape; /* anything but NULL */
        convt3d_error other = {CONVT3D_OK, ""};
        got = convt3d_plan_create(p, (convt3d_direction)d, NULL, &plan, &other);
        if (got != want) fail_msg("%s: the plan says %s", what, convt3d_status_name(got));
        assert_string_equal(other.text, err->text);
        assert_null(plan);
    }
}

/* ---- One argument at a time --------------------------------------------- */

#define FIELD(name) #name, offsetof(convt3d_problem, name)
#define EACH_AXIS   3
#define NO_AXIS     1

static const struct {
    const char *name;
    size_t offset;
    int axes;
    int64_t value;
    convt3d_status status;
    const char *range; /* must be in the text, as must the name, axis and value */
} refused[] = {
    {FIELD(stride), EACH_AXIS, 0, CONVT3D_ARG, "at least 1"},
    {FIELD(stride), EACH_AXIS, -1, CONVT3D_ARG, "at least 1"},
    {FIELD(stride), EACH_AXIS, INT64_MIN, CONVT3D_ARG, "at least 1"},
    {FIELD(dilation), EACH_AXIS, 0, CONVT3D_ARG, "at least 1"},
    {FIELD(dilation), EACH_AXIS, -3, CONVT3D_ARG, "at least 1"},
    {FIELD(padding_before), EACH_AXIS, -1, CONVT3D_ARG, "at least 0"},
    {FIELD(padding_after), EACH_AXIS, -1, CONVT3D_ARG, "at least 0"},
    {FIELD(padding_after), EACH_AXIS, INT64_MIN, CONVT3D_ARG, "at least 0"},
    {FIELD(output_padding), EACH_AXIS, -1, CONVT3D_ARG, "at least 0"},
    {FIELD(output_padding), EACH_AXIS, 2, CONVT3D_ARG, "0 to 1"},
    {FIELD(output_padding), EACH_AXIS, INT64_MAX, CONVT3D_ARG, "0 to 1"},
    {FIELD(groups), NO_AXIS, 0, CONVT3D_ARG, "at least 1"},
    {FIELD(groups), NO_AXIS, -2, CONVT3D_ARG, "at least 1"},
    {FIELD(groups), NO_AXIS, 3, CONVT3D_SHAPE, "divisible"},
    {FIELD(groups), NO_AXIS, INT64_MAX, CONVT3D_SHAPE, "divisible"},
    {FIELD(in_channels), NO_AXIS, 5, CONVT3D_SHAPE, "divisible by groups"},
    {FIELD(out_channels), NO_AXIS, 7, CONVT3D_SHAPE, "divisible by groups"},
    {FIELD(in_channels), NO_AXIS, 0, CONVT3D_SHAPE, "at least 1"},
    {FIELD(in_channels), NO_AXIS, -4, CONVT3D_SHAPE, "at least 1"},
    {FIELD(out_channels), NO_AXIS, 0, CONVT3D_SHAPE, "at least 1"},
    {FIELD(kernel_size), EACH_AXIS, 0, CONVT3D_SHAPE, "at least 1"},
    {FIELD(kernel_size), EACH_AXIS, -3, CONVT3D_SHAPE, "at least 1"},
    {FIELD(input_size), EACH_AXIS, 0, CONVT3D_SHAPE, "at least 1"},
    {FIELD(input_size), EACH_AXIS, INT64_MIN, CONVT3D_SHAPE, "at least 1"},
    {FIELD(batch), NO_AXIS, -1, CONVT3D_SHAPE, "at least 0"},
};

static void one_argument_at_a_time(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        for (int a = 0; a < refused[i].axes; a++)
            for (int empty = 0; empty < 2; empty++) {
                convt3d_problem p = base_problem();
                convt3d_error err;
                char what[100], value[32];
                if (empty) p.batch = 0; /* an empty batch makes nothing legal */
                memcpy((char *)&p + refused[i].offset + 8 * (size_t)a, &refused[i].value, 8);
                snprintf(value, sizeof value, "%" PRId64, refused[i].value);
                snprintf(what, sizeof what, "%s %s, axis %d", refused[i].name, value, a);
                must_refuse(what, &p, refused[i].status, &err);
                /* The two paddings are one argument with two sides. */
                int padding = !strncmp(refused[i].name, "padding", 7);
                must_contain(what, err.text, padding ? "padding" : refused[i].name);
                if (padding) must_contain(what, err.text, refused[i].name + 8);
                must_contain(what, err.text, value);
                must_contain(what, err.text, refused[i].range);
                if (refused[i].axes == 3) must_contain(what, err.text, axis_names[a]);
            }
}

static void enums_and_struct_size(void **state) {
    (void)state;
    convt3d_error err;
    for (int value = -1; value <= 5; value += 6) {
        convt3d_problem p = base_problem();
        p.padding_mode = (convt3d_padding_mode)value;
        must_refuse("padding_mode", &p, CONVT3D_ARG, &err);
        static const char *const names[] = {"padding_mode", "_ZEROS", "_REFLECT", "_REPLICATE",
                                            "_CIRCULAR"};
        for (int i = 0; i < 5; i++) must_contain("padding_mode", err.text, names[i]);
        p = base_problem();
        p.dtype = (convt3d_dtype)value;
        must_refuse("dtype", &p, CONVT3D_DTYPE, &err);
        must_contain("dtype", err.text, "1 to 4 (convt3d_dtype)");
    }
    const size_t wrong[] = {0, 8, sizeof(convt3d_problem) - 1, SIZE_MAX};
    for (int i = 0; i < 4; i++) {
        convt3d_problem p = base_problem();
        p.struct_size = wrong[i];
        must_refuse("struct_size", &p, CONVT3D_ARG, &err);
        must_contain("struct_size", err.text, "struct_size");
    }
    convt3d_padding_mode mode = CONVT3D_CIRCULAR;
    assert_int_equal(convt3d_padding_mode_parse("Zeros", &mode, &err), CONVT3D_ARG);
    assert_int_equal(mode, CONVT3D_CIRCULAR);
    must_contain("parse", err.text, "Zeros");
    must_contain("parse", err.text, "replicate");
}

/* Reflect needs padding < out, circular padding <= out, on each side alone. */
static void padding_limits_of_modes(void **state) {
    (void)state;
    for (int a = 0; a < 3; a++)
        for (int side = 0; side < 2; side++)
            for (int mode = CONVT3D_REFLECT; mode <= CONVT3D_CIRCULAR; mode++) {
                convt3d_problem p = base_problem();
                convt3d_error err;
                char limit[32], value[32];
                p.padding_mode = (convt3d_padding_mode)mode;
                p.padding_before[a] = p.padding_after[a] = 0;
                int64_t *padding = side ? p.padding_after : p.padding_before, legal = 0;
                /* full = out + padding, so the largest legal one follows. */
                int64_t full = oracle_output_size(&p, a);
                legal = mode == CONVT3D_CIRCULAR ? full / 2 : (full - 1) / 2;
                if (mode == CONVT3D_REPLICATE) legal = full - 1;
                padding[a] = legal;
                if (convt3d_problem_output_shape(&p, NULL, &err)) fail_msg("%s", err.text);
                padding[a] = legal + 1;
                convt3d_status want = mode == CONVT3D_REPLICATE ? CONVT3D_SHAPE : CONVT3D_ARG;
                must_refuse("padding beyond its mode's limit", &p, want, &err);
                must_contain("limit", err.text, axis_names[a]);
                if (mode == CONVT3D_REPLICATE) continue;
                int64_t out = full - legal - 1;
                snprintf(value, sizeof value, "%" PRId64, legal + 1);
                snprintf(limit, sizeof limit, "%" PRId64, mode == CONVT3D_CIRCULAR ? out : out - 1);
                must_contain("limit", err.text, value);
                must_contain("limit", err.text, limit);
                must_contain("limit", err.text, convt3d_padding_mode_name(p.padding_mode));
            }
}

/* An output without size: the message is the formula with its numbers. */
static void output_without_size(void **state) {
    (void)state;
    for (int a = 0; a < 3; a++) {
        convt3d_problem p = base_problem();
        convt3d_error err;
        char formula[100];
        p.padding_before[a] = 9;
        p.padding_after[a] = 11;
        snprintf(formula, sizeof formula, "(%d - 1)*2 - 9 - 11 + 1*(3 - 1) + 0 + 1 = %d", 5 + a,
                 -9 + 2 * a);
        must_refuse("empty output", &p, CONVT3D_SHAPE, &err);
        must_contain("empty output", err.text, axis_names[a]);
        must_contain("empty output", err.text, formula);
    }
}

/* ---- Numbers beyond 64 bits --------------------------------------------- */

__extension__ typedef __int128 wide;

/* Whether all three tensors have sizes of at least 1 and fit 63 bits of bytes. */
static int legal_in_128_bits(const convt3d_problem *p, int64_t shape[5]) {
    wide bytes[3] = {4, 4, 4}, most = INT64_MAX;
    int64_t batch = p->batch ? p->batch : 1;
    const int64_t head[3][2] = {{batch, p->in_channels},
                                {p->in_channels, p->out_channels / p->groups},
                                {batch, p->out_channels}};
    shape[0] = p->batch;
    shape[1] = p->out_channels;
    for (int t = 0; t < 3; t++)
        for (int i = 0; i < 5; i++) {
            int a = i - 2;
            wide size = i < 2 ? head[t][i] : t == 0 ? p->input_size[a] : p->kernel_size[a];
            if (t == 2 && a >= 0) {
                size = (wide)(p->input_size[a] - 1) * p->stride[a] - p->padding_before[a] -
                       p->padding_after[a] + (wide)p->dilation[a] * (p->kernel_size[a] - 1) +
                       p->output_padding[a] + 1;
                if (size > most) return 0;
                shape[i] = (int64_t)size;
            }
            if (size < 1 || (bytes[t] *= size) > most) return 0;
        }
    return 1;
}

/* Every integer at extreme values, on top of sizes that multiply and that don't:
 * accepted exactly when 128-bit arithmetic says that it is legal. */
static void extreme_integers(void **state) {
    (void)state;
    static const int64_t extreme[] = {
        (int64_t)INT32_MAX + 1, -((int64_t)1 << 40), (int64_t)1 << 40, INT64_MIN, INT64_MAX,
        (int64_t)1 << 62,       (int64_t)1 << 32,    0x10000};
    static const char *const texts[] = {"n2ci4co6g2i5x6x7k3s2p1", "n1ci1co1i1k1",
                                        "n1ci1co1i2k1s3p0op1", "n1ci2co2i1k4d3mreplicate"};
    size_t first = offsetof(convt3d_problem, batch) / 8, last = sizeof(convt3d_problem) / 8;
    int accepted = 0, refusals = 0;
    for (size_t t = 0; t < 4; t++)
        for (size_t field = first; field < last; field++)
            for (size_t v = 0; v < sizeof extreme / sizeof *extreme; v++) {
                convt3d_problem p;
                convt3d_error err = {CONVT3D_OK, ""};
                int64_t shape[5], want[5];
                convt3d_problem_parse(texts[t], &p, NULL, 0, NULL);
                memcpy((char *)&p + 8 * field, &extreme[v], 8);
                convt3d_status status = convt3d_problem_output_shape(&p, shape, &err);
                if (!status) {
                    if (!legal_in_128_bits(&p, want)) fail_msg("accepted %s", problem_text(&p));
                    assert_memory_equal(shape, want, sizeof shape);
                    accepted++;
                    continue;
                }
                assert_true(status == CONVT3D_ARG || status == CONVT3D_SHAPE ||
                            status == CONVT3D_OVERFLOW);
                refusals++;
                must_refuse("extreme integer", &p, status, &err);
                /* Large but sound must not be refused as an overflow. */
                if (status == CONVT3D_OVERFLOW && legal_in_128_bits(&p, want))
                    fail_msg("refused %s: %s", problem_text(&p), err.text);
            }
    assert_true(accepted > 80 && refusals > 300);
}

static void products_that_wrap(void **state) {
    (void)state;
    static const char *const texts[] = {
        "n1ci1co1i4294967296x4294967296x1k1",        /* 2^64 elements: wraps to 0 */
        "n1ci1co1i2097152x2097152x2097152k1",        /* 2^63 elements */
        "n1ci1co1i1048576x1048576x2097152k1",        /* 2^61 elements, 2^63 bytes */
        "n1ci1co1i1048576x1048576x1048576k1f64",     /* 2^60 elements, 2^63 bytes */
        "n1ci4294967296co4294967296i1k1",            /* the weight's two channels */
        "n4294967296ci2147483648co1i1k1",            /* batch times channels */
        "n1ci1co1i4k4294967296p4611686018427387904", /* each fits, the sums don't matter */
        "n1ci1co1i9223372036854775807k2s9223372036854775807",
        "n1ci1co1i1k9223372036854775807d9223372036854775807",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        convt3d_problem p;
        convt3d_error err = {CONVT3D_OK, ""};
        memset(&p, 0x55, sizeof p);
        convt3d_status status = convt3d_problem_parse(texts[i], &p, NULL, 0, &err);
        if (status != CONVT3D_OVERFLOW && !(i == 6 && status == CONVT3D_SHAPE))
            fail_msg("%s: %s (%s)", texts[i], convt3d_status_name(status), err.text);
    }
}

/* An empty batch is measured as one sample: what is legal doesn't depend on it. */
static void empty_batches_at_the_limit(void **state) {
    (void)state;
    for (int64_t batch = 0; batch <= 2; batch++) {
        convt3d_problem p;
        convt3d_error err = {CONVT3D_OK, ""};
        /* 2^62 bytes a sample */
        assert_int_equal(convt3d_problem_parse("ci1co1i1048576k1", &p, NULL, 0, &err), CONVT3D_OK);
        p.batch = batch;
        assert_int_equal(convt3d_problem_output_shape(&p, NULL, &err),
                         batch < 2 ? CONVT3D_OK : CONVT3D_OVERFLOW);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_argument_at_a_time),     cmocka_unit_test(enums_and_struct_size),
        cmocka_unit_test(padding_limits_of_modes),    cmocka_unit_test(output_without_size),
        cmocka_unit_test(extreme_integers),           cmocka_unit_test(products_that_wrap),
        cmocka_unit_test(empty_batches_at_the_limit),
    };
    return cmocka_run_group_tests_name("arguments", tests, NULL, NULL);
}
