/* test_terms: float32 by products of bfloat16 terms, where the CPU has AMX, against the
 * reference and against the same layer without.
 * SPDX-License-Identifier: MIT
 *
 * Each comparison is between plans with the best instruction set and with the best one that
 * has no terms.  On other CPUs these are one and the same, and must agree all the more. */
#include "terms.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static uint64_t seed;

/* Layers that terms are faster for: all kinds of strides and rows, channels that fill no
 * tile, groups, folded borders, samples side by side. */
static const char *const layers[] = {
    "ci32co80i2x5x33k1x3x3s1x2x2p0x1x1", /* the smallest first, for sanitizers */
    "ci64co64i3x5x40k3",
    "ci64co48i4x6x7k3s2p1op1",
    "ci96co33i3x4x64k2s2",
    "ci40co64i4k2s2",
    "n9ci64co32i4k4s2p1",
    "n17ci128co32i2x3x3k3",
    "ci64co64i3x4x9k3d2p2",
    "ci64co32i2x6x10k3s2d3",
    "ci130co70g2i3x4x12k3s2p1op1",
    "ci128co128g4i3x3x20k3p1",
    "ci64co64i4x5x6k3s2p1op1mreflect",
    "ci64co64i4x5x6k3s1x2x1p1mcircular",
    "n8ci32co32i2x3x5k4s2p1mreplicate",
    "n2ci256co96i5k3s2p1x0x2x1x0x1",
    "ci64co64i2x9x17k5s3p2",
    "ci600co32i3x3x4k3",
    "ci17co65i4x8x20k3s2",
    "n3ci64co48i3x4x32k2s2",
    "ci48co33i2x5x64k3s2p1op1",
    "ci33co64i3x4x60k3x2x4s1x2x3p1x0x2d2x1x1",
    "ci32co32i3x9x31k3p1mreflect",
};
enum {
    LAYERS = sizeof layers / sizeof *layers
};

/* ---- Values ---- */

/* Against the reference, which adds in double. */
static int check_exact(rng *r, const char *text, convt3d_direction direction, terms_number *source,
                       terms_number *weight, convt3d_precision precision) {
    terms_work w = terms_make(r, text, direction, source, weight);
    int terms = 0;
    w.algorithm = "reference";
    float *expected = terms_compute(&w, NULL);
    w.algorithm = NULL;
    w.precision = precision;
    float *found = terms_compute(&w, &terms);
    for (int64_t i = 0, n = oracle_count(&w.p, terms_result(direction)); i < n; i++) {
        if (found[i] == 0) found[i] = 0; /* -0 */
        if (expected[i] == 0) expected[i] = 0;
    }
    terms_same(&w, found, expected, "not the reference's value");
    free(found);
    free(expected);
    terms_free(&w);
    return terms;
}

static void small_integers(void **state) {
    rng r = {seed};
    int terms = 0;
    (void)state;
    for (int i = 0; i < terms_cases(LAYERS); i++) {
        for (int d = 0; d < 3; d++) {
            for (int p = 0; p < 3; p++)
                terms += check_exact(&r, layers[i], (convt3d_direction)d, terms_small_integer,
                                     terms_small_integer, (convt3d_precision)p);
        }
    }
    print_message("%d of %d plans multiply terms\n", terms, 9 * LAYERS);
    if (terms_there() && terms_cases(LAYERS) == LAYERS) assert_true(terms > 4 * LAYERS);
}

/* Both operands' second and third terms, one after another. */
static float sign(rng *r) {
    return (float)rng_between(r, -1, 1);
}

static float long_integer(rng *r) {
    return (float)(rng_between(r, -(1 << 16), 1 << 16) | 1);
}

static float wide_integer(rng *r) {
    return rng_chance(r, 25) ? (float)(rng_between(r, -(1 << 9), 1 << 9) | 1) : 0;
}

static void integers_of_several_terms(void **state) {
    static const char *const texts[] = {"ci64co64i4x5x12k1", "ci64co64i3x4x40k2s2",
                                        "ci40co64i4k2s2"};
    rng r = {seed + 1};
    int terms = 0;
    (void)state;
    for (int i = 0; i < 3; i++) {
        const convt3d_direction f = CONVT3D_FORWARD;
        terms += check_exact(&r, texts[i], f, long_integer, sign, CONVT3D_PRECISION_HIGHEST);
        terms += check_exact(&r, texts[i], f, sign, long_integer, CONVT3D_PRECISION_HIGHEST);
        terms +=
            check_exact(&r, texts[i], f, wide_integer, wide_integer, CONVT3D_PRECISION_HIGHEST);
        terms += check_exact(&r, texts[i], f, wide_integer, sign, CONVT3D_PRECISION_HIGH);
        terms += check_exact(&r, texts[i], f, sign, wide_integer, CONVT3D_PRECISION_HIGH);
    }
    if (terms_there()) assert_true(terms > 7);
}

/* ---- Errors ---- */

/* Of |error| in units of 2^-24 times the sum of magnitudes: root mean square and largest. */
typedef struct errors {
    double rms, most;
} errors;

static errors errors_of(terms_work *w) {
    const oracle_role from = terms_source(w->direction), to = terms_result(w->direction);
    const oracle_role second = terms_second(w->direction);
    const int64_t n = oracle_count(&w->p, from), m = oracle_count(&w->p, second);
    const int64_t count = oracle_count(&w->p, to);
    real *values[4] = {0}, *sums[4] = {0};
    const oracle_role roles[3] = {from, second, to};
    const int64_t counts[3] = {n, m, count};
    errors e = {0, 0};
    for (int i = 0; i < 3; i++) {
        values[roles[i]] = malloc((size_t)(counts[i] + 1) * sizeof(real));
        sums[roles[i]] = malloc((size_t)(counts[i] + 1) * sizeof(real));
        const float *data = i == 0 ? w->source : w->weight;
        for (int64_t j = 0; j < counts[i] && i < 2; j++) {
            values[roles[i]][j] = (real)data[j];
            sums[roles[i]][j] = fabsl((real)data[j]);
        }
    }
    oracle_run(&w->p, w->direction, values);
    oracle_run(&w->p, w->direction, sums);
    float *found = terms_compute(w, NULL);
    for (int64_t j = 0; j < count; j++) {
        if (sums[to][j] == 0) continue;
        double error = (double)(fabsl((real)found[j] - values[to][j]) / sums[to][j]) * 0x1p24;
        e.rms += error * error;
        if (!(error <= e.most)) e.most = error;
    }
    e.rms = sqrt(e.rms / (double)(count ? count : 1));
    for (int i = 0; i < 3; i++) {
        free(values[roles[i]]);
        free(sums[roles[i]]);
    }
    free(found);
    return e;
}

static void errors_by_precision(void **state) {
    static const char *const texts[] = {"ci64co64i3x4x20k3p1", "ci256co64i3x4x30k3s2p1op1"};
    rng r = {seed + 2};
    (void)state;
    for (int i = 0; i < terms_cases(6); i++) {
        terms_work w =
            terms_make(&r, texts[i / 3], (convt3d_direction)(i % 3), terms_normal, terms_normal);
        errors by[3], plain;
        for (int p = 0; p < 3; p++) {
            w.precision = (convt3d_precision)p;
            by[p] = errors_of(&w);
        }
        w.precision = CONVT3D_PRECISION_HIGHEST;
        w.isa = terms_plain_isa();
        plain = errors_of(&w);
        print_message("%s: rms %.3f highest, %.3f high, %.3f medium, %.3f without terms\n",
                      texts[i / 3], by[0].rms, by[1].rms, by[2].rms, plain.rms);
        assert_true(by[0].rms <= plain.rms && by[0].most < 8);
        assert_true(by[1].most < 0x1p9 && by[2].most < 0x1p17);
        if (terms_there()) { /* each is what it says */
            assert_true(i % 3 == 2 || by[0].rms < 0.6 * plain.rms);
            assert_true(by[1].rms > plain.rms && by[2].rms > 64 * by[1].rms);
        }
        terms_free(&w);
    }
}

/* ---- The same bytes ---- */

static void any_number_of_threads(void **state) {
    rng r = {seed + 3};
    (void)state;
    for (int i = 0; i < terms_cases(LAYERS); i++) {
        for (int d = 0; d < 3; d++) {
            terms_work w =
                terms_make(&r, layers[i], (convt3d_direction)d, terms_normal, terms_normal);
            w.threads = 1;
            float *one = terms_compute(&w, NULL);
            for (w.threads = 2; w.threads < 8; w.threads += 3) {
                float *more = terms_compute(&w, NULL);
                terms_same(&w, more, one, "other bytes by other threads");
                free(more);
            }
            free(one);
            terms_free(&w);
        }
    }
}

/* Each sample by itself, one of them with a number that terms can't hold: it has to leave
 * the others as they are. */
static void any_split_of_the_batch(void **state) {
    static const char *const texts[] = {"n9ci64co32i4k4s2p1", "n10ci64co64i3x5x6k3s2p1op1",
                                        "n8ci128co32i2x3x3k3"};
    rng r = {seed + 4};
    (void)state;
    for (int i = 0; i < terms_cases(12); i++) {
        terms_work w =
            terms_make(&r, texts[i / 4], (convt3d_direction)(i % 2), terms_normal, terms_normal);
        const int64_t batch = w.p.batch, n = oracle_count(&w.p, terms_source(w.direction)) / batch;
        const int64_t size = oracle_count(&w.p, terms_result(w.direction)) / batch;
        if (i & 2) w.source[5 * n + n / 2] = 0x1p-130f;
        float *all = terms_compute(&w, NULL), *one;
        terms_work each = w;
        each.p.batch = 1;
        for (int64_t s = 0; s < batch; s++, each.source += n) {
            one = terms_compute(&each, NULL);
            terms_same(&each, one, all + s * size, "other bytes in a batch");
            free(one);
        }
        free(all);
        terms_free(&w);
    }
}

/* From dense memory, or back to it. */
static void move(const convt3d_problem *p, oracle_role role, float *dense, float *other,
                 terms_order order, int back) {
    int64_t shape[5];
    const int64_t count = terms_shape(p, role, shape);
    const convt3d_tensor t = terms_tensor(p, role, other, order);
    for (int64_t j = 0; j < count; j++) {
        int64_t rest = j, place = 0;
        for (int a = 4; a >= 0; rest /= shape[a--]) place += rest % shape[a] * t.stride[a];
        if (back)
            dense[j] = other[place];
        else
            other[place] = dense[j];
    }
}

static void check_order(rng *r, const char *text, convt3d_direction direction, terms_order order) {
    terms_work w = terms_make(r, text, direction, terms_small_integer, terms_small_integer);
    const oracle_role from = terms_source(direction), to = terms_result(direction);
    const int64_t n = oracle_count(&w.p, from), m = oracle_count(&w.p, to);
    float *dense = terms_compute(&w, NULL), *source = malloc((size_t)(n + 1) * sizeof(float));
    float *back = malloc((size_t)(m + 1) * sizeof(float));
    terms_work other = w;
    move(&w.p, from, w.source, source, order, 0);
    other.source = source;
    other.order = order;
    float *found = terms_compute(&other, NULL);
    move(&w.p, to, back, found, order, 1);
    terms_same(&w, back, dense, "other values in another order of memory");
    free(back);
    free(found);
    free(source);
    free(dense);
    terms_free(&w);
}

/* The last of them takes rows in strips where samples are closest. */
static void orders_of_memory(void **state) {
    rng r = {seed + 5};
    (void)state;
    for (int i = 0; i < terms_cases(LAYERS); i++) {
        for (int d = 0; d < 6; d++)
            check_order(&r, layers[i], (convt3d_direction)(d / 2),
                        d % 2 ? TERMS_CHANNELS_LAST : TERMS_SAMPLES_LAST);
    }
    for (int d = 0; d < 2 && terms_cases(LAYERS) == LAYERS; d++)
        check_order(&r, "n12ci256co256i3x5x48k3s1x1x2", (convt3d_direction)d, TERMS_SAMPLES_LAST);
}

static float *in_child(const terms_work *w) {
    const size_t bytes = (size_t)oracle_count(&w->p, terms_result(w->direction)) * sizeof(float);
    float *result = malloc(bytes);
    int ends[2];
    size_t got = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        float *own = terms_compute(w, NULL);
        for (size_t sent = 0; sent < bytes;) {
            ssize_t n = write(ends[1], (char *)own + sent, bytes - sent);
            if (n <= 0) _exit(1);
            sent += (size_t)n;
        }
        _exit(0);
    }
    close(ends[1]);
    while (got < bytes) {
        ssize_t n = read(ends[0], (char *)result + got, bytes - got);
        if (n <= 0) break;
        got += (size_t)n;
    }
    close(ends[0]);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(got, bytes);
    return result;
}

static void in_a_forked_child(void **state) {
    rng r = {seed + 6};
    terms_work w = terms_make(&r, layers[0], CONVT3D_FORWARD, terms_normal, terms_normal);
    float *here = terms_compute(&w, NULL), *there = in_child(&w);
    (void)state;
    terms_same(&w, there, here, "other bytes after fork()");
    free(there);
    free(here);
    terms_free(&w);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_integers),         cmocka_unit_test(integers_of_several_terms),
        cmocka_unit_test(errors_by_precision),    cmocka_unit_test(any_number_of_threads),
        cmocka_unit_test(any_split_of_the_batch), cmocka_unit_test(orders_of_memory),
        cmocka_unit_test(in_a_forked_child),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
