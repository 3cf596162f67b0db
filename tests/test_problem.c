/* test_problem: sizes and strings: what output_size can be, and problem strings
 * there and back.
 * SPDX-License-Identifier: MIT */
#include "material.h"

#include <ctype.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;
static convt3d_error err;

static int same(const convt3d_problem *a, const convt3d_problem *b) {
    return a->dtype == b->dtype && a->padding_mode == b->padding_mode && a->bias == b->bias &&
           !memcmp(&a->batch, &b->batch, sizeof *a - offsetof(convt3d_problem, batch));
}

static void defaults(void **state) {
    (void)state;
    convt3d_problem p;
    memset(&p, 0x55, sizeof p);
    convt3d_problem_init(&p);
    assert_int_equal(p.struct_size, sizeof p);
    assert_int_equal(p.dtype, CONVT3D_FLOAT32);
    assert_int_equal(p.padding_mode, CONVT3D_ZEROS);
    assert_int_equal(p.bias, 1);
    assert_true(p.batch == 1 && p.groups == 1 && p.in_channels == 0 && p.out_channels == 0);
    for (int a = 0; a < 3; a++) {
        assert_true(p.stride[a] == 1 && p.dilation[a] == 1 && p.input_size[a] == 0);
        assert_true(p.padding_before[a] == 0 && p.padding_after[a] == 0);
        assert_true(p.output_padding[a] == 0 && p.kernel_size[a] == 0);
    }
}

/* ---- Output sizes ------------------------------------------------------- */

/* Every size in the range is reached by exactly one output_padding, and the
 * sizes beside it are refused with the range. */
static void output_sizes(void **state) {
    (void)state;
    rng r = {seed};
    int tried = 0;
    for (int turn = 0, turns = test_count(1000); turn < turns; turn++) {
        convt3d_problem p, q;
        int64_t low[3], high[3];
        random_problem(&r, 40000, &p);
        p.padding_mode = CONVT3D_ZEROS;
        if (convt3d_problem_output_range(&p, low, high, &err)) fail_msg("%s", err.text);
        int a = (int)rng_between(&r, 0, 2);
        int64_t most = p.stride[a] > p.dilation[a] ? p.stride[a] : p.dilation[a];
        assert_int_equal(low[a], oracle_output_size(&p, a) - p.output_padding[a]);
        assert_int_equal(high[a], low[a] + most - 1);
        int64_t size[3], shape[5];
        for (int b = 0; b < 3; b++) size[b] = low[b] > 0 ? low[b] : high[b];
        for (size[a] = low[a] - 1; size[a] <= high[a] + 1; size[a]++) {
            q = p;
            convt3d_status status = convt3d_problem_set_output_size(&q, size, &err);
            if (size[a] < low[a] || size[a] > high[a]) {
                char range[64];
                static const char *const axes[] = {"depth", "height", "width"};
                assert_int_equal(status, CONVT3D_SHAPE);
                assert_true(same(&p, &q));
                snprintf(range, sizeof range, "%" PRId64 " to %" PRId64, low[a], high[a]);
                if (size[a] < 1) continue;
                if (!strstr(err.text, range) && low[a] != high[a])
                    fail_msg("no '%s' in %s", range, err.text);
                assert_non_null(strstr(err.text, axes[a]));
                assert_non_null(strstr(err.text, "output_padding"));
                continue;
            }
            if (size[a] < 1) continue;
            if (status) fail_msg("%s: %s", problem_text(&p), err.text);
            assert_int_equal(q.output_padding[a], size[a] - low[a]);
            assert_int_equal(convt3d_problem_output_shape(&q, shape, &err), CONVT3D_OK);
            for (int b = 0; b < 3; b++) assert_int_equal(shape[2 + b], size[b]);
            tried++;
        }
    }
    assert_true(tried > test_count(1000));
}

/* Known by hand: dilation counts in the size and in the range. */
static void output_range_by_hand(void **state) {
    (void)state;
    convt3d_problem p;
    int64_t low[3], high[3];
    /* width: (7 - 1)*2 - 2 - 3 + 4*(3 - 1) + 1 = 16 */
    assert_int_equal(
        convt3d_problem_parse("n1ci1co1i5x6x7k3s1x3x2p0x0x1x2x2x3d2x1x4", &p, NULL, 0, &err),
        CONVT3D_OK);
    assert_int_equal(convt3d_problem_output_range(&p, low, high, &err), CONVT3D_OK);
    const int64_t smallest[3] = {9, 15, 16}, largest[3] = {10, 17, 19};
    assert_memory_equal(low, smallest, sizeof low);
    assert_memory_equal(high, largest, sizeof high);
    const int64_t beyond[3] = {9, 15, 20};
    assert_int_equal(convt3d_problem_set_output_size(&p, beyond, &err), CONVT3D_SHAPE);
    static const char *const words[] = {"width", "20", "16", "19", "0", "3", "output_padding"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strstr(err.text, words[i])) fail_msg("no '%s' in %s", words[i], err.text);
}

/* ---- Problem strings ---------------------------------------------------- */

static void strings_there_and_back(void **state) {
    (void)state;
    rng r = {seed + 1};
    for (int turn = 0, turns = test_count(5000); turn < turns; turn++) {
        convt3d_problem p, q;
        char text[512], small[9], name[4];
        random_problem(&r, 40000, &p);
        size_t length = convt3d_problem_format(&p, text, sizeof text);
        assert_int_equal(length, strlen(text));
        assert_int_equal(convt3d_problem_format(&p, NULL, 0), length);
        memset(small, 'x', sizeof small);
        assert_int_equal(convt3d_problem_format(&p, small, 8), length);
        assert_int_equal(strlen(small), length < 7 ? length : 7);
        assert_int_equal(small[8], 'x');
        if (convt3d_problem_parse(text, &q, NULL, 0, &err)) fail_msg("%s: %s", text, err.text);
        if (!same(&p, &q)) fail_msg("%s parses to another problem", text);
        strcat(text, ":\"abcdef\"");
        assert_int_equal(convt3d_problem_parse(text, &q, name, sizeof name, &err), CONVT3D_OK);
        assert_string_equal(name, "abc");
    }
}

static void strings_by_hand(void **state) {
    (void)state;
    static const struct {
        const char *text, *shortest;
    } same_problem[] = {
        {"n1ci64co32i24x32x64k3s2p1op1nb", "ci64co32i24x32x64k3s2p1op1nb"},
        {"n2g1ci3co4i5x5x5k2x2x2s1d1p0op0mzeros", "n2ci3co4i5k2"},
        {"ci3co4i5k3p1x1x1x1x1x1f64mcircular", "ci3co4i5k3p1f64mcircular"},
        {"ci3co4i5k3p1x1x2x2x3x3", "ci3co4i5k3p1x2x3"},
        {"ci3co4i5k3p1x1x1x0x0x0", "ci3co4i5k3p1x1x1x0x0x0"},
    };
    for (size_t i = 0; i < sizeof same_problem / sizeof *same_problem; i++) {
        convt3d_problem p;
        if (convt3d_problem_parse(same_problem[i].text, &p, NULL, 0, &err))
            fail_msg("%s: %s", same_problem[i].text, err.text);
        /* The order of fields is free, the number of characters isn't. */
        if (strlen(problem_text(&p)) != strlen(same_problem[i].shortest))
            fail_msg("%s, not %s", problem_text(&p), same_problem[i].shortest);
    }
}

static void strings_that_are_wrong(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "x",
        "n1",
        "ci3co4i5",
        "ci3co4k5",
        "co4i5k3",
        "ci3i5k3",
        "ci3co4i5k3 ",
        " ci3co4i5k3",
        "ci3co4i5k3k3",
        "ci3co4i5x5k3",
        "ci3co4i5x5x5x5k3",
        "ci3co4i5k3x",
        "ci3co4i5kx3",
        "ci3co4i5k3s",
        "ci3co4i5k3q1",
        "ci3co4i5k3mzero",
        "ci3co4i5k3mzerosmzeros",
        "ci3co4i5k3nbnb",
        "ci3co4i5k3f32",
        "ci3co4i5k3p1x1",
        "ci3co4i5k3p1x1x1x1",
        "ci3co4i5k3p1x1x1x1x1",
        "ci3co4i5k3s2x2x2x2x2x2",
        "ci3co4i5k-3",
        "ci3co4i5k+3",
        "ci3co4i5k3:name",
        "ci3co4i5k3:\"name",
        "ci3co4i5k3:\"name\"x",
        "ci3co4i5k3\"name\"",
        "ci3co4i5k3:",
        "ci99999999999999999999co4i5k3",
        "ci3co4i5k9223372036854775808",
        "ci3.0co4i5k3",
        "ci3co4i5k3s0",
        "ci0co4i5k3",
        "ci3co4i5k3g2",
        "CI3CO4I5K3",
        "ci3co4i5k3m",
        "ci3co4i5k3ms2",
        "ci3co4i5k3mreflects2x",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        convt3d_problem p;
        char name[16];
        err.text[0] = 0;
        convt3d_status status = convt3d_problem_parse(texts[i], &p, name, sizeof name, &err);
        if (!status) fail_msg("\"%s\" was accepted", texts[i]);
        assert_int_equal(status, err.status);
        assert_true(strlen(err.text) > 8);
    }
}

/* The layers of real models, as the benchmark lists them. */
static void layers_of_the_benchmark(void **state) {
    (void)state;
    FILE *file = fopen(CONVT3D_SOURCE_DIR "/bench/layers.txt", "r");
    char line[512], name[64];
    int count = 0;
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        convt3d_problem p, q;
        size_t length = strlen(line);
        while (length && isspace((unsigned char)line[length - 1])) line[--length] = 0;
        if (!length || *line == '#') continue;
        if (convt3d_problem_parse(line, &p, name, sizeof name, &err))
            fail_msg("%s: %s", line, err.text);
        char *colon = strchr(line, ':');
        assert_non_null(colon);
        assert_true(!strncmp(colon + 2, name, strlen(name)) && *name);
        *colon = 0;
        const char *text = problem_text(&p);
        if (strlen(text) > strlen(line)) fail_msg("%s isn't the shortest: %s", text, line);
        assert_int_equal(convt3d_problem_parse(text, &q, NULL, 0, &err), CONVT3D_OK);
        assert_true(same(&p, &q));
        count++;
    }
    fclose(file);
    assert_true(count >= 30);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(output_sizes),
        cmocka_unit_test(output_range_by_hand),
        cmocka_unit_test(strings_there_and_back),
        cmocka_unit_test(strings_by_hand),
        cmocka_unit_test(strings_that_are_wrong),
        cmocka_unit_test(layers_of_the_benchmark),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("problem", tests, NULL, NULL);
}
