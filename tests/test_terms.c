/* test_terms: float32 by products of bfloat16 terms, where the CPU has AMX, against the
 * reference and against the same layer without.
 * SPDX-License-Identifier: MIT
 *
 * Each comparison is between plans with the best instruction set and with the best one that
 * has no terms.  On other CPUs these are one and the same, and must agree all the more. */
#include "material.h"

#include <fenv.h>
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

static int has_terms(void) {
    return convt3d_isa_supported("x86_amx");
}

static const char *plain_isa(void) {
    return has_terms() ? "x86_avx512" : NULL;
}

/* Layers that terms are faster for: all kinds of strides and rows, channels that fill no
 * tile, groups, folded borders, samples side by side. */
static const char *const layers[] = {
    "ci64co64i3x5x40k3",
    "ci64co48i4x6x7k3s2p1op1",
    "ci96co33i3x4x64k2s2",
    "ci40co64i4k2s2",
    "n9ci64co32i4k4s2p1",
    "n17ci128co32i2x3x3k3",
    "ci32co80i2x5x33k1x3x3s1x2x2p0x1x1",
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
};
enum {
    LAYERS = sizeof layers / sizeof *layers
};

static convt3d_problem problem(const char *text) {
    convt3d_problem p;
    convt3d_error err;
    if (convt3d_problem_parse(text, &p, NULL, 0, &err)) fail_msg("%s: %s", text, err.text);
    return p;
}

/* ---- One computation ----------------------------------------------------------------- */

/* A layer's input (or grad_output), weight, and how it is computed. */
typedef struct work {
    convt3d_problem p;
    convt3d_direction direction;
    const char *isa, *algorithm;
    convt3d_precision precision;
    int32_t threads;
    float *source, *weight;
    int last; /* channels are closest in memory, in source and result */
} work;

static int64_t shape_of(const convt3d_problem *p, oracle_role role, int64_t shape[5]) {
    oracle_shape(p, role, shape);
    return oracle_count(p, role);
}

static oracle_role source_of(convt3d_direction direction) {
    return direction == CONVT3D_FORWARD ? ORACLE_INPUT : ORACLE_OUTPUT;
}

static oracle_role result_of(convt3d_direction direction) {
    return direction == CONVT3D_FORWARD ? ORACLE_OUTPUT : ORACLE_INPUT;
}

static convt3d_tensor tensor(const convt3d_problem *p, oracle_role role, float *data, int last) {
    int64_t shape[5];
    shape_of(p, role, shape);
    convt3d_tensor t = convt3d_tensor_dense(data, CONVT3D_FLOAT32, 5, shape);
    if (last && role != ORACLE_WEIGHT) {
        t.stride[1] = 1;
        t.stride[4] = shape[1];
        t.stride[3] = t.stride[4] * shape[4];
        t.stride[2] = t.stride[3] * shape[3];
    }
    return t;
}

static convt3d_plan *plan_of(const work *w) {
    convt3d_options options;
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_options_init(&options);
    options.isa = w->isa;
    options.algorithm = w->algorithm;
    options.precision = w->precision;
    options.threads = w->threads;
    if (convt3d_plan_create(&w->p, w->direction, &options, &plan, &err)) fail_msg("%s", err.text);
    return plan;
}

static int uses_terms(const convt3d_plan *plan) {
    char text[2000];
    convt3d_plan_describe(plan, text, sizeof text);
    return strstr(text, "where they fit its range") != NULL;
}

/* The result, to be freed; *terms counts plans that multiply terms. */
static float *compute(const work *w, int *terms) {
    const int64_t count = oracle_count(&w->p, result_of(w->direction));
    float *result = malloc((size_t)(count + 1) * sizeof *result);
    convt3d_plan *plan = plan_of(w);
    convt3d_tensor from = tensor(&w->p, source_of(w->direction), w->source, w->last);
    convt3d_tensor weight = tensor(&w->p, ORACLE_WEIGHT, w->weight, 0);
    convt3d_tensor to = tensor(&w->p, result_of(w->direction), result, w->last);
    convt3d_error err;
    memset(result, 0xff, (size_t)count * sizeof *result);
    convt3d_status status = w->direction == CONVT3D_FORWARD
                                ? convt3d_forward(plan, &from, &weight, NULL, NULL, &to, NULL, &err)
                                : convt3d_backward_input(plan, &from, &weight, NULL, &to,
                                                         CONVT3D_OVERWRITE, NULL, &err);
    if (status) fail_msg("%s", err.text);
    if (terms) *terms += uses_terms(plan);
    convt3d_plan_free(plan);
    return result;
}

typedef float number(rng *r);

static float small_integer(rng *r) {
    return (float)rng_between(r, -8, 8);
}

static float normal(rng *r) {
    return (float)rng_normal(r);
}

static work work_make(rng *r, const char *text, convt3d_direction direction, number *source,
                      number *weight) {
    work w = {.p = problem(text), .direction = direction, .threads = 2};
    const int64_t n = oracle_count(&w.p, source_of(direction));
    const int64_t m = oracle_count(&w.p, ORACLE_WEIGHT);
    w.source = malloc((size_t)(n + 1) * sizeof(float));
    w.weight = malloc((size_t)(m + 1) * sizeof(float));
    for (int64_t i = 0; i < n; i++) w.source[i] = source(r);
    for (int64_t i = 0; i < m; i++) w.weight[i] = weight(r);
    return w;
}

static void work_free(work *w) {
    free(w->source);
    free(w->weight);
}

/* Fails unless both are the same, with the first place where they aren't. */
static void same(const work *w, const float *a, const float *b, const char *what) {
    const int64_t count = oracle_count(&w->p, result_of(w->direction));
    for (int64_t i = 0; i < count; i++) {
        if (memcmp(&a[i], &b[i], sizeof *a) == 0) continue;
        print_error("%s %s, %s, seed %llu: element %lld is %.9g, but %.9g\n", problem_text(&w->p),
                    convt3d_direction_name(w->direction), convt3d_precision_name(w->precision),
                    (unsigned long long)seed, (long long)i, (double)a[i], (double)b[i]);
        fail_msg("%s", what);
    }
}

/* ---- Values -------------------------------------------------------------------------------- */

/* Against the reference, which adds in double. */
static int check_exact(rng *r, const char *text, convt3d_direction direction, number *source,
                       number *weight, convt3d_precision precision) {
    work w = work_make(r, text, direction, source, weight);
    int terms = 0;
    w.algorithm = "reference";
    float *expected = compute(&w, NULL);
    w.algorithm = NULL;
    w.precision = precision;
    float *found = compute(&w, &terms);
    for (int64_t i = 0, n = oracle_count(&w.p, result_of(direction)); i < n; i++) {
        if (found[i] == 0) found[i] = 0; /* -0 */
        if (expected[i] == 0) expected[i] = 0;
    }
    same(&w, found, expected, "not the reference's value");
    free(found);
    free(expected);
    work_free(&w);
    return terms;
}

static void small_integers(void **state) {
    rng r = {seed};
    int terms = 0;
    (void)state;
    for (int i = 0; i < LAYERS; i++) {
        for (int d = 0; d < 2; d++) {
            for (int p = 0; p < 3; p++)
                terms += check_exact(&r, layers[i], (convt3d_direction)d, small_integer,
                                     small_integer, (convt3d_precision)p);
        }
    }
    print_message("%d of %d plans multiply terms\n", terms, 6 * LAYERS);
    if (has_terms()) assert_true(terms > 4 * LAYERS);
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
    if (has_terms()) assert_true(terms > 7);
}

/* ---- Errors ------------------------------------------------------------------------------------
 */

/* Of |error| in units of 2^-24 times the sum of magnitudes: root mean square and largest. */
typedef struct errors {
    double rms, most;
} errors;

static errors errors_of(work *w) {
    const oracle_role from = source_of(w->direction), to = result_of(w->direction);
    const int64_t n = oracle_count(&w->p, from), m = oracle_count(&w->p, ORACLE_WEIGHT);
    const int64_t count = oracle_count(&w->p, to);
    real *values[4] = {0}, *sums[4] = {0};
    const oracle_role roles[3] = {from, ORACLE_WEIGHT, to};
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
    float *found = compute(w, NULL);
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
    static const char *const texts[] = {"ci64co64i3x4x20k3p1", "ci256co64i3x4x9k3s2p1op1"};
    rng r = {seed + 2};
    (void)state;
    for (int i = 0; i < 4; i++) {
        work w = work_make(&r, texts[i / 2], (convt3d_direction)(i % 2), normal, normal);
        errors by[3], plain;
        for (int p = 0; p < 3; p++) {
            w.precision = (convt3d_precision)p;
            by[p] = errors_of(&w);
        }
        w.precision = CONVT3D_PRECISION_HIGHEST;
        w.isa = plain_isa();
        plain = errors_of(&w);
        print_message("%s: rms %.3f highest, %.3f high, %.3f medium, %.3f without terms\n",
                      texts[i / 2], by[0].rms, by[1].rms, by[2].rms, plain.rms);
        assert_true(by[0].rms <= plain.rms && by[0].most < 8);
        assert_true(by[1].most < 0x1p9 && by[2].most < 0x1p17);
        if (has_terms()) { /* each is what it says */
            assert_true(by[0].rms < 0.6 * plain.rms);
            assert_true(by[1].rms > plain.rms && by[2].rms > 64 * by[1].rms);
        }
        work_free(&w);
    }
}

/* ---- The same bytes
 * -------------------------------------------------------------------------------- */

static void any_number_of_threads(void **state) {
    rng r = {seed + 3};
    (void)state;
    for (int i = 0; i < LAYERS; i++) {
        for (int d = 0; d < 2; d++) {
            work w = work_make(&r, layers[i], (convt3d_direction)d, normal, normal);
            w.threads = 1;
            float *one = compute(&w, NULL);
            for (w.threads = 2; w.threads < 8; w.threads += 3) {
                float *more = compute(&w, NULL);
                same(&w, more, one, "other bytes by other threads");
                free(more);
            }
            free(one);
            work_free(&w);
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
    for (int i = 0; i < 12; i++) {
        work w = work_make(&r, texts[i / 4], (convt3d_direction)(i % 2), normal, normal);
        const int64_t batch = w.p.batch, n = oracle_count(&w.p, source_of(w.direction)) / batch;
        const int64_t size = oracle_count(&w.p, result_of(w.direction)) / batch;
        if (i & 2) w.source[5 * n + n / 2] = 0x1p-130f;
        float *all = compute(&w, NULL), *one;
        work each = w;
        each.p.batch = 1;
        for (int64_t s = 0; s < batch; s++, each.source += n) {
            one = compute(&each, NULL);
            same(&each, one, all + s * size, "other bytes in a batch");
            free(one);
        }
        free(all);
        work_free(&w);
    }
}

static void channels_last(void **state) {
    rng r = {seed + 5};
    (void)state;
    for (int i = 0; i < LAYERS; i++) {
        for (int d = 0; d < 2; d++) {
            work w = work_make(&r, layers[i], (convt3d_direction)d, small_integer, small_integer);
            const oracle_role from = source_of(w.direction), to = result_of(w.direction);
            const int64_t n = oracle_count(&w.p, from);
            int64_t shape[5], m = shape_of(&w.p, to, shape);
            float *dense = compute(&w, NULL), *source = malloc((size_t)(n + 1) * sizeof(float));
            convt3d_tensor across = tensor(&w.p, from, source, 1);
            int64_t at[5], sizes[5];
            shape_of(&w.p, from, sizes);
            for (int64_t j = 0; j < n; j++) {
                int64_t rest = j, place = 0;
                for (int a = 4; a >= 0; a--, rest /= sizes[a + 1]) {
                    at[a] = rest % sizes[a];
                    place += at[a] * across.stride[a];
                }
                source[place] = w.source[j];
            }
            work other = w;
            other.source = source;
            other.last = 1;
            float *found = compute(&other, NULL), *back = malloc((size_t)(m + 1) * sizeof(float));
            convt3d_tensor result = tensor(&w.p, to, found, 1);
            for (int64_t j = 0; j < m; j++) {
                int64_t rest = j, place = 0;
                for (int a = 4; a >= 0; a--, rest /= shape[a + 1])
                    place += rest % shape[a] * result.stride[a];
                back[j] = found[place];
            }
            same(&w, back, dense, "other values with channels last");
            free(back);
            free(found);
            free(source);
            free(dense);
            work_free(&w);
        }
    }
}

static float *in_child(const work *w) {
    const size_t bytes = (size_t)oracle_count(&w->p, result_of(w->direction)) * sizeof(float);
    float *result = malloc(bytes);
    int ends[2];
    size_t got = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        float *own = compute(w, NULL);
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
    work w = work_make(&r, layers[0], CONVT3D_FORWARD, normal, normal);
    float *here = compute(&w, NULL), *there = in_child(&w);
    (void)state;
    same(&w, there, here, "other bytes after fork()");
    free(there);
    free(here);
    work_free(&w);
}

/* ---- Ranges
 * ------------------------------------------------------------------------------------------- */

/* Whether source row 'source' has a share in result row 'result', on one axis. */
static int reaches(const work *w, int a, int64_t source, int64_t result) {
    const convt3d_problem *p = &w->p;
    const int64_t in = w->direction == CONVT3D_FORWARD ? source : result;
    const int64_t out = w->direction == CONVT3D_FORWARD ? result : source;
    for (int64_t k = 0; k < p->kernel_size[a]; k++) {
        if (in * p->stride[a] + k * p->dilation[a] - p->padding_before[a] == out) return 1;
    }
    return 0;
}

/* Rows that the source row at (sample, d, h) reaches must be what a plan without terms makes of
 * the new data; all others what they were. */
static void check_rows(const work *w, const float *before, const float *after, const float *plain,
                       const int64_t at[3]) {
    int64_t shape[5];
    const int64_t count = shape_of(&w->p, result_of(w->direction), shape);
    for (int64_t i = 0; i < count; i++) {
        const int64_t h = i / shape[4] % shape[3], d = i / shape[4] / shape[3] % shape[2];
        const int64_t n = i / shape[4] / shape[3] / shape[2] / shape[1];
        const int reached = n == at[0] && reaches(w, 0, at[1], d) && reaches(w, 1, at[2], h);
        const float *expected = reached ? &plain[i] : &before[i];
        if (memcmp(expected, &after[i], sizeof *after) == 0) continue;
        if (isnan(*expected) && isnan(after[i])) continue;
        print_error("%s %s: element %lld, which is %sreached, is %.9g, but must be %.9g\n",
                    problem_text(&w->p), convt3d_direction_name(w->direction), (long long)i,
                    reached ? "" : "not ", (double)after[i], (double)*expected);
        fail_msg("a number out of range");
    }
}

static void numbers_out_of_range(void **state) {
    static const float odd[] = {NAN, INFINITY, 0x1p-130f, 0x1p-104f, 0x1p115f, 0x1.fffffep127f};
    static const char *const texts[] = {"n2ci64co64i5x6x9k3s2p1op1", "n2ci64co64i3x5x70k3",
                                        "n9ci64co32i4k4s2p1", "ci40co64i4k2s2"};
    rng r = {seed + 7};
    (void)state;
    for (int i = 0; i < 8; i++) {
        work w = work_make(&r, texts[i / 2], (convt3d_direction)(i % 2), normal, normal);
        int64_t shape[5];
        const int64_t n = shape_of(&w.p, source_of(w.direction), shape);
        float *before = compute(&w, NULL);
        for (int j = 0; j < 6; j++) {
            const int64_t place = rng_between(&r, 0, n - 1), h = place / shape[4] % shape[3];
            const int64_t d = place / shape[4] / shape[3] % shape[2];
            const int64_t at[3] = {place / shape[4] / shape[3] / shape[2] / shape[1], d, h};
            const float old = w.source[place];
            w.source[place] = odd[j];
            float *after = compute(&w, NULL);
            w.isa = plain_isa();
            float *plain = compute(&w, NULL);
            w.isa = NULL;
            check_rows(&w, before, after, plain, at);
            w.source[place] = old;
            free(plain);
            free(after);
        }
        free(before);
        work_free(&w);
    }
}

/* One such weight, and there are no terms at all. */
static void weights_out_of_range(void **state) {
    static const float odd[] = {NAN, 0x1p-130f, 0x1p115f};
    rng r = {seed + 8};
    (void)state;
    for (int i = 0; i < 6; i++) {
        work w =
            work_make(&r, "ci64co64i3x5x9k3s2p1op1", (convt3d_direction)(i % 2), normal, normal);
        w.weight[rng_between(&r, 0, oracle_count(&w.p, ORACLE_WEIGHT) - 1)] = odd[i / 2];
        float *found = compute(&w, NULL);
        w.isa = plain_isa();
        float *plain = compute(&w, NULL);
        for (int64_t j = 0; j < oracle_count(&w.p, result_of(w.direction)); j++)
            if (isnan(plain[j]) && isnan(found[j])) found[j] = plain[j];
        same(&w, found, plain, "a weight out of range");
        free(plain);
        free(found);
        work_free(&w);
    }
}

/* Tiles round to nearest whatever the caller wants. */
static void other_roundings(void **state) {
    rng r = {seed + 9};
    work w = work_make(&r, layers[0], CONVT3D_FORWARD, normal, normal);
    (void)state;
    float *nearest = compute(&w, NULL);
    fesetround(FE_UPWARD);
    float *up = compute(&w, NULL);
    w.isa = plain_isa();
    float *plain = compute(&w, NULL);
    fesetround(FE_TONEAREST);
    same(&w, up, plain, "upward");
    assert_true(memcmp(up, nearest, sizeof(float) * 1000) != 0);
    free(plain);
    free(up);
    free(nearest);
    work_free(&w);
}

/* ---- The CPU's state, options, packed weights
 * ------------------------------------------------------------ */

#if defined(__x86_64__)
typedef struct tile_configuration {
    unsigned char bytes[64];
} tile_configuration;

static tile_configuration stored(void) {
    tile_configuration c;
    __asm__ volatile("sttilecfg %0" : "=m"(c));
    return c;
}

/* A host that computes with tiles itself. */
static void a_hosts_tiles(void **state) {
    rng r = {seed + 10};
    work w = work_make(&r, layers[0], CONVT3D_FORWARD, normal, normal);
    tile_configuration own = {{0}}, none = {{0}}, after;
    (void)state;
    free(compute(&w, NULL)); /* asks for permission */
    if (has_terms()) {
        after = stored();
        assert_memory_equal(&after, &none, sizeof none);
        own.bytes[0] = 1;   /* palette */
        own.bytes[16] = 48; /* bytes of a row, */
        own.bytes[48] = 7;  /* and rows of tile 0 */
        __asm__ volatile("ldtilecfg %0" : : "m"(own));
        w.threads = 1;
        free(compute(&w, NULL));
        after = stored();
        __asm__ volatile("tilerelease");
        assert_memory_equal(&after, &own, sizeof own);
    }
    work_free(&w);
}
#endif

static void options(void **state) {
    convt3d_problem p = problem("ci64co64i4k3");
    convt3d_options o;
    convt3d_plan *plan = NULL;
    convt3d_error err;
    convt3d_precision precision;
    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *name = convt3d_precision_name((convt3d_precision)i);
        assert_int_equal(convt3d_precision_parse(name, &precision, &err), CONVT3D_OK);
        assert_int_equal(precision, i);
    }
    assert_null(convt3d_precision_name((convt3d_precision)3));
    assert_int_equal(convt3d_precision_parse("low", &precision, &err), CONVT3D_ARG);
    assert_string_equal(err.text, "precision is 'low', but must be 'highest', 'high' or 'medium'");
    assert_int_equal(convt3d_precision_parse(NULL, &precision, &err), CONVT3D_ARG);
    convt3d_options_init(&o);
    assert_int_equal(o.precision, CONVT3D_PRECISION_HIGHEST);
    o.precision = (convt3d_precision)7;
    assert_int_equal(convt3d_plan_create(&p, CONVT3D_FORWARD, &o, &plan, &err), CONVT3D_ARG);
    assert_string_equal(err.text, "options.precision is 7, but must be 0 to 2 (convt3d_precision)");
    assert_null(plan);
    /* As a program knows the options that was made before there was a precision. */
    o.struct_size = offsetof(convt3d_options, precision);
    assert_int_equal(convt3d_plan_create(&p, CONVT3D_FORWARD, &o, &plan, &err), CONVT3D_OK);
    convt3d_plan_free(plan);
}

/* Weights that were packed for a size that takes no terms serve one that does, and the other
 * way round; those of another precision are refused. */
static void packed_weights(void **state) {
    rng r = {seed + 11};
    work w = work_make(&r, "ci320co320i4x4x16k2s2", CONVT3D_FORWARD, normal, normal), tiny = w;
    convt3d_weights *packed;
    convt3d_error err;
    (void)state;
    for (int a = 0; a < 3; a++) tiny.p.input_size[a] = 1;
    for (int i = 0; i < 2; i++) {
        const work *from = i ? &tiny : &w, *to = i ? &w : &tiny;
        convt3d_plan *make = plan_of(from), *use = plan_of(to);
        convt3d_tensor weight = tensor(&w.p, ORACLE_WEIGHT, w.weight, 0);
        float *expected = compute(to, NULL);
        const int64_t count = oracle_count(&to->p, ORACLE_OUTPUT);
        float *found = malloc((size_t)count * sizeof *found);
        convt3d_tensor x = tensor(&to->p, ORACLE_INPUT, to->source, 0);
        convt3d_tensor y = tensor(&to->p, ORACLE_OUTPUT, found, 0);
        assert_int_equal(convt3d_weights_pack(make, &weight, &packed, &err), CONVT3D_OK);
        assert_int_equal(convt3d_forward(use, &x, NULL, packed, NULL, &y, NULL, &err), CONVT3D_OK);
        same(to, found, expected, "by packed weights");
        convt3d_plan_free(use);
        work other = *to;
        other.precision = CONVT3D_PRECISION_MEDIUM;
        use = plan_of(&other);
        assert_int_equal(convt3d_forward(use, &x, NULL, packed, NULL, &y, NULL, &err), CONVT3D_ARG);
        assert_non_null(strstr(err.text, "precision highest"));
        convt3d_weights_free(packed);
        convt3d_plan_free(use);
        convt3d_plan_free(make);
        free(found);
        free(expected);
    }
    work_free(&w);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_integers),
        cmocka_unit_test(integers_of_several_terms),
        cmocka_unit_test(errors_by_precision),
        cmocka_unit_test(any_number_of_threads),
        cmocka_unit_test(any_split_of_the_batch),
        cmocka_unit_test(channels_last),
        cmocka_unit_test(in_a_forked_child),
        cmocka_unit_test(numbers_out_of_range),
        cmocka_unit_test(weights_out_of_range),
        cmocka_unit_test(other_roundings),
#if defined(__x86_64__)
        cmocka_unit_test(a_hosts_tiles),
#endif
        cmocka_unit_test(options),
        cmocka_unit_test(packed_weights),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
