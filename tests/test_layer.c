/* test_layer: random problems with integer data, where every algorithm, on
 * every instruction set, must give exactly what the oracle gives.
 * SPDX-License-Identifier: MIT
 *
 * Integers are exact in any order of additions as long as the sum of
 * magnitudes stays in the significand, so the comparison needs no tolerance,
 * and one lost, doubled or misplaced product can't hide.  Small integers alone
 * would not see a hidden loss of precision: wide and long operands do.  Where memory holds
 * 16 bits, sums are as exact, and are rounded once. */
#include "material.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint64_t seed;

/* ---- What has been covered ---------------------------------------------- */

static struct {
    int64_t values, nonzero;
    int problems, empty, unbatched, doubles, halves, modes[4], grouped, depthwise, cropped, holes,
        dilated_strided, output_padded, asymmetric, op_beyond_stride, with_bias, packed,
        packed_elsewhere, scratch, accumulated, threaded;
} seen;

static void note_problem(const convt3d_problem *p) {
    int cropped = 0, holes = 0, dilated = 0, op = 0, asymmetric = 0, beyond = 0;
    for (int a = 0; a < 3; a++) {
        int64_t reach = p->dilation[a] * (p->kernel_size[a] - 1);
        cropped |= p->padding_before[a] > reach || p->padding_after[a] > reach;
        holes |= p->stride[a] > reach + 1 || (p->stride[a] == p->dilation[a] && p->stride[a] > 1);
        dilated |= p->stride[a] > 1 && p->dilation[a] > 1;
        op |= p->output_padding[a] > 0;
        beyond |= p->output_padding[a] >= p->stride[a];
        asymmetric |= p->padding_before[a] != p->padding_after[a];
    }
    seen.problems++;
    seen.empty += p->batch == 0;
    seen.doubles += p->dtype == CONVT3D_FLOAT64;
    seen.halves += convt3d_dtype_size(p->dtype) == 2;
    seen.modes[p->padding_mode]++;
    seen.grouped += p->groups > 1;
    seen.depthwise += p->groups > 1 && p->groups == p->in_channels;
    seen.cropped += cropped;
    seen.holes += holes;
    seen.dilated_strided += dilated;
    seen.output_padded += op;
    seen.op_beyond_stride += beyond;
    seen.asymmetric += asymmetric;
}

/* ---- Integer data ------------------------------------------------------- */

typedef enum operands {
    SMALL_BY_SMALL,
    WIDE_BY_WIDE, /* 12 by 11 bits of float32's 24; 27 by 24 of float64's 52 */
    LONG_BY_BIT   /* 20 bits by a sign; 48 by a sign; float16 holds 15 at most */
} operands;

/* Integers whose lowest bit is set, so that every bit of the width counts. */
static real wide_integer(rng *r, int bits) {
    int64_t top = (int64_t)1 << bits, value = rng_between(r, 0, top - 1) | 1;
    return (real)(rng_chance(r, 50) ? value : -value);
}

static real operand(rng *r, operands kind, int second, convt3d_dtype dtype) {
    const int wide_type = dtype == CONVT3D_FLOAT64;
    if (kind == SMALL_BY_SMALL) return (real)rng_between(r, -8, 8);
    if (kind == WIDE_BY_WIDE)
        return wide_integer(r, wide_type ? (second ? 24 : 27) : (second ? 11 : 12));
    return second ? (real)rng_between(r, -1, 1)
                  : wide_integer(r, wide_type                  ? 48
                                    : dtype == CONVT3D_FLOAT16 ? 15
                                                               : 20);
}

/* The largest sum of magnitudes that one result adds up. */
static real largest_sum(const layer *l) {
    real *magnitude[4], largest = 0;
    for (int role = 0; role < 4; role++) {
        int64_t count = oracle_count(&l->p, (oracle_role)role);
        magnitude[role] = malloc((size_t)(count + 1) * sizeof(real));
        for (int64_t i = 0; i < count; i++)
            magnitude[role][i] = l->value[role][i] < 0 ? -l->value[role][i] : l->value[role][i];
    }
    oracle_run(&l->p, l->direction, magnitude);
    for (int role = 0; role < 4; role++) {
        int64_t count = oracle_count(&l->p, (oracle_role)role);
        for (int64_t i = 0; i < count && layer_unknown(l->direction, (oracle_role)role); i++)
            if (magnitude[role][i] > largest) largest = magnitude[role][i];
        free(magnitude[role]);
    }
    return largest;
}

/* Fills what is known, and thins it out until every sum is exact. */
static void fill_known(rng *r, layer *l, operands kind) {
    int wide_type = l->p.dtype == CONVT3D_FLOAT64, role;
    real limit = wide_type ? 0x1p52L : 0x1p24L, previous = 8;
    oracle_role pair[2];
    int pairs = 0, swap = rng_chance(r, 50);
    for (role = ORACLE_INPUT; role <= ORACLE_OUTPUT; role++)
        if (layer_known(l->direction, (oracle_role)role)) pair[pairs++] = (oracle_role)role;
    for (int k = 0; k < 2; k++) {
        real *v = l->value[pair[k]];
        for (int64_t i = 0, n = oracle_count(&l->p, pair[k]); i < n; i++)
            v[i] = operand(r, kind, k ^ swap, l->p.dtype);
        layer_store(l, pair[k]);
    }
    if (l->direction == CONVT3D_FORWARD) {
        for (int64_t i = 0; i < l->p.out_channels; i++)
            l->value[ORACLE_BIAS][i] = (real)rng_between(r, -9, 9);
        layer_store(l, ORACLE_BIAS);
    }
    for (int turn = 0; largest_sum(l) + previous > limit; turn ^= 1) {
        real *v = l->value[pair[turn]];
        for (int64_t i = 0, n = oracle_count(&l->p, pair[turn]); i < n; i++)
            if (rng_chance(r, 35)) v[i] = 0;
        layer_store(l, pair[turn]);
    }
}

/* ---- One run ------------------------------------------------------------ */

static const struct {
    const char *algorithm;
    int every_isa;
} algorithms[] = {{NULL, 0}, {"reference", 0}, {"engine", 1}};

static void complain(const layer *l, const convt3d_options *o, const char *what) {
    print_error("%s: %s, algorithm %s, isa %s, %d threads, seed %llu\n",
                convt3d_direction_name(l->direction), problem_text(&l->p),
                o->algorithm ? o->algorithm : "any", o->isa ? o->isa : "any", (int)o->threads,
                (unsigned long long)seed);
    fail_msg("%s", what);
}

/* Weights packed for another batch and another input size serve as well. */
static convt3d_weights *pack(rng *r, const layer *l, const convt3d_options *o,
                             const convt3d_plan *plan) {
    convt3d_weights *packed = NULL;
    convt3d_plan *other = NULL;
    convt3d_problem p = l->p;
    convt3d_error err = {CONVT3D_OK, ""};
    if (rng_chance(r, 40)) {
        p.batch = rng_between(r, 0, 4);
        for (int a = 0; a < 3; a++) p.input_size[a] += rng_between(r, 0, 9);
        seen.packed_elsewhere++;
        if (convt3d_plan_create(&p, l->direction, o, &other, &err)) complain(l, o, err.text);
    }
    if (convt3d_weights_pack(other ? other : plan, &l->tensor[ORACLE_WEIGHT].tensor, &packed, &err))
        complain(l, o, err.text);
    convt3d_plan_free(other);
    seen.packed++;
    return packed;
}

/* Compares what is in the tensors with expected[role], and looks for writes
 * beside the elements. */
static void compare(const layer *l, const convt3d_options *o, int with_bias,
                    real *const expected[4]) {
    for (int role = 0; role < 4; role++) {
        if (!layer_unknown(l->direction, (oracle_role)role)) continue;
        if (role == ORACLE_BIAS && !with_bias) continue;
        int64_t count = oracle_count(&l->p, (oracle_role)role);
        material_load(&l->tensor[role], l->value[role]);
        for (int64_t i = 0; i < count; i++) {
            real got = l->value[role][i], want = expected[role][i];
            if (!(got == want)) {
                print_error("role %d, element %lld: %.17Lg, but the oracle says %.17Lg\n", role,
                            (long long)i, got, want);
                complain(l, o, "wrong value");
            }
            seen.nonzero += want != 0;
        }
        seen.values += count;
        if (!material_gaps_untouched(&l->tensor[role])) complain(l, o, "wrote between elements");
    }
}

/* The unknown starts as NaN, or as small integers that the result is added to. */
static void prepare_unknown(rng *r, layer *l, int accumulate, real *const expected[4],
                            real *want[4]) {
    for (int role = 0; role < 4; role++) {
        int64_t count = oracle_count(&l->p, (oracle_role)role);
        want[role] = malloc((size_t)(count + 1) * sizeof(real));
        if (!layer_unknown(l->direction, (oracle_role)role)) continue;
        for (int64_t i = 0; i < count; i++) {
            real before = (real)rng_between(r, -8, 8);
            l->value[role][i] = accumulate ? before : (real)NAN;
            want[role][i] = layer_round(l, role, expected[role][i] + (accumulate ? before : 0));
        }
        layer_store(l, (oracle_role)role);
    }
}

/* Whether the plan's description has this line: a silent fallback proves nothing. */
static int says(const char *description, const char *key, const char *value) {
    char line[100];
    snprintf(line, sizeof line, "\n%s: %s\n", key, value);
    return strstr(description, line) != NULL;
}

static void run_once(rng *r, layer *l, const convt3d_options *o, int with_bias,
                     real *const expected[4]) {
    int accumulate = l->direction != CONVT3D_FORWARD && rng_chance(r, 50);
    real *want[4];
    convt3d_plan *plan = NULL;
    convt3d_weights *packed = NULL;
    convt3d_run run;
    convt3d_error err = {CONVT3D_OK, ""};
    guarded scratch = {0};
    char text[4096];
    if (convt3d_plan_create(&l->p, l->direction, o, &plan, &err)) complain(l, o, err.text);
    convt3d_plan_describe(plan, text, sizeof text);
    if (o->algorithm && !says(text, "algorithm", o->algorithm))
        complain(l, o, "another algorithm ran");
    if (o->isa && !says(text, "isa", o->isa)) complain(l, o, "another isa ran");
    if (l->direction != CONVT3D_BACKWARD_WEIGHT && rng_chance(r, 50)) packed = pack(r, l, o, plan);
    convt3d_run_init(&run);
    run.threads = (int32_t)rng_between(r, 0, convt3d_plan_threads(plan));
    if (rng_chance(r, 50)) {
        run.scratch_size = convt3d_plan_scratch_size(plan, run.threads, packed != NULL);
        scratch = guarded_alloc(run.scratch_size, rng_chance(r, 70));
        run.scratch = scratch.data;
        seen.scratch++;
    }
    prepare_unknown(r, l, accumulate, expected, want);
    convt3d_write write = accumulate ? CONVT3D_ACCUMULATE : CONVT3D_OVERWRITE;
    if (layer_run(l, plan, packed, with_bias, write, &run, &err)) complain(l, o, err.text);
    compare(l, o, with_bias, want);
    seen.accumulated += accumulate;
    seen.threaded += o->threads > 1;
    convt3d_weights_free(packed);
    convt3d_plan_free(plan);
    guarded_free(&scratch);
    for (int role = 0; role < 4; role++) free(want[role]);
}

static void check_direction(rng *r, const convt3d_problem *p, convt3d_direction direction,
                            operands kind, unsigned flags) {
    int with_bias = rng_chance(r, 60), unbatched = p->batch == 1 && rng_chance(r, 30);
    layer l = layer_make(r, p, direction, flags | (unbatched ? LAYER_UNBATCHED : 0));
    fill_known(r, &l, kind);
    layer_protect(&l);
    seen.unbatched += unbatched;
    seen.with_bias += with_bias;
    real *expected[4];
    for (int role = 0; role < 4; role++) {
        size_t bytes = (size_t)(oracle_count(p, (oracle_role)role) + 1) * sizeof(real);
        expected[role] = malloc(bytes);
        memcpy(expected[role], l.value[role], bytes);
    }
    real *bias = expected[ORACLE_BIAS];
    if (!with_bias) expected[ORACLE_BIAS] = NULL;
    oracle_run(p, direction, expected);
    expected[ORACLE_BIAS] = bias;
    for (size_t a = 0; a < sizeof algorithms / sizeof *algorithms; a++) {
        const char *isa = NULL;
        for (int i = 0; i == 0 || isa; i++) {
            convt3d_options o;
            convt3d_options_init(&o);
            o.algorithm = algorithms[a].algorithm;
            o.threads = (int32_t)rng_between(r, 1, 3);
            isa = algorithms[a].every_isa ? convt3d_isa_name(i) : NULL;
            if (algorithms[a].every_isa && (!isa || !convt3d_isa_supported(isa))) continue;
            o.isa = isa;
            run_once(r, &l, &o, with_bias, expected);
        }
    }
    for (int role = 0; role < 4; role++) free(expected[role]);
    layer_free(&l);
}

static void check_problems(int count, operands kind) {
    rng r = {seed + (uint64_t)kind};
    for (int i = 0; i < count; i++) {
        convt3d_problem p;
        random_problem(&r, 40000, &p);
        note_problem(&p);
        for (int d = CONVT3D_FORWARD; d <= CONVT3D_BACKWARD_WEIGHT; d++)
            check_direction(&r, &p, (convt3d_direction)d, kind, 0);
    }
}

/* ---- Tests -------------------------------------------------------------- */

static void small_integers(void **state) {
    (void)state;
    check_problems(test_count(1800), SMALL_BY_SMALL);
}

static void wide_operands(void **state) {
    (void)state;
    check_problems(test_count(400), WIDE_BY_WIDE);
}

static void long_operands(void **state) {
    (void)state;
    check_problems(test_count(400), LONG_BY_BIT);
}

/* Larger problems, so that blocks, tails and slabs of every kind occur. */
static void larger_problems(void **state) {
    (void)state;
    static const char *const texts[] = {
        /* Small ones first, of which sanitizers run no others. */
        "n1ci8co6g2i5x6x33k3s2p1d2mreflectbf16",
        "n1ci3co4i3x4x19k4x2x6s2x2x3p1x0x2g1",
        "n1ci16co33i6x10x35k3s2",
        "n2ci47co17i3x5x9k3s2p1op1",
        "n1ci33co1i5x6x40k3s2p1op1",
        "n2ci3co48i4k4s2p1",
        "n3ci64co40i2k4s2p1",
        "n1ci40co64i7k2s2",
        "n1ci30co30g30i9x9x20k3s2p1",
        "n1ci24co24g24i8k7s2p3",
        "n2ci19co80i3x1x7k1",
        "n9ci16co8i8k2s2",
        "n1ci17co16i6x7x70k3p1",
        "n1ci5co12i6x8x19k3x5x2s2x1x1p0x4x2",
        "n33ci4co4i2x3x4k2s2p1",
        "n65ci3co5i2k3s2",
        "n1ci3co2i2x3x4k23x9x11p5x4x3",
        "n1ci2co2i40k1s2",
        "n1ci8co6g2i5x6x33k3s2p1d2mreflect",
        "n1ci6co8g2i9x8x18k4s2p2mcircular",
        "n2ci9co4i6x6x17k5s3p2op2mreplicate",
        /* Each mode with as much padding as it allows, on both sides or on one. */
        "n2ci2co3i3k1s4p3mcircular",
        "n1ci2co3i3x2x5k2x3x1p2x0x0x1x0x2mcircular",
        "n1ci2co3i3k1s4p4x0x0x4x4x0mreflect",
        "n1ci2co3i4x4x20k3p1x1x1x2x7x7mreflect",
        "n1ci2co3i3k3p4x0x0x4x2x2mreplicate",
        "n2ci2co3i2x3x30k3s2p2x2x3x3x30x30mreplicate",
        "n1ci4co3i12x12x12k3s2p1op1f64",
        "n2ci3co2i70x9x9k2p63x2x0x0x2x3",
        "n1ci20co17i5x9x37k3s2p1bf16",
        "n2ci40co33i3x6x35k4s2p1bf16",
        "n3ci64co40i2k4s2p1bf16",
        "n1ci9co2i4x5x37k3s2p1op1f16",
        "n33ci4co4i2x3x4k2s2p1f16",
        "n1ci64co32i3x5x40k2s2f16",
        /* Few channels whose phases are channels; rows that are run as one; heavy weights. */
        "n2ci11co1i3x5x34k4s2p1",
        "n1ci9co3i4x3x33k2s2p0op1nb",
        "n1ci6co2g2i5x4x9k4s4p1",
        "n1ci6co2g2i5x4x9k1x1x7s1x1x7p0x0x1",
        "n1ci5co1i3x4x21k2x2x8s2x2x8",
        "n1ci64co4i2x1x9k2s2",
        "ci1co2i8k3s3f64",
        "ci1co1i2k3s3",
        "ci4co4i2k3s3",
        "ci33co33i2x2x4k3s3f64",
        "n2ci24co9i7x9x9k2s2",
        "n2ci32co64g2i3x4x5k2x1x3s2x1x3",
        "ci1co1i16k8s4",
        "ci2co1i2x3x9k3s3",
        "n2ci96co80i4x8x8k2s2",
        "n9ci70co130i2k4s2p1",
        "n1ci130co70i6k3s2p1op1",
        "n1ci4co4g4i5x6x70k3s2p1",
        "n3ci2co2g2i4x9x17k7s2p3f64",
        "n1ci2co3i3x3x3k40p20f64",
        /* Merged phases with unequal taps. */
        "n1ci9co2i4x5x37k3s2p1op1",
        "n2ci8co4i5x4x20k7s2p3",
        "n1ci8co3i4x6x18k5s3p1",
        "n1ci10co1i3x4x50k4x3x5s3x2x2p1",
        "n1ci11co2i3x5x9k3x5x4s1x3x3p1x2x0f64",
        /* Source rows that come and go. */
        "n1ci12co16i5x23x18k3s2p1d2",
        "n1ci9co9i4x21x17k5x4x3s2x3x1p2x1x1",
        /* Slabs that are multiplied a chunk of channels at a time. */
        "n32ci130co34i4k4s2p1",
        "n16ci130co40i4k4s2p1f64",
    };
    rng r = {seed + 77};
    int all = sizeof texts / sizeof *texts, count = test_count(all);
    for (int i = 0; i < count && i < all; i++) {
        convt3d_problem p;
        convt3d_error err;
        if (convt3d_problem_parse(texts[i], &p, NULL, 0, &err)) fail_msg("%s", err.text);
        note_problem(&p);
        for (int d = CONVT3D_FORWARD; d <= CONVT3D_BACKWARD_WEIGHT; d++)
            check_direction(&r, &p, (convt3d_direction)d, SMALL_BY_SMALL, 0);
    }
}

/* Dense results that go past the caches, with rows that share cache lines. */
static void streamed_results(void **state) {
    (void)state;
    static const char *const texts[] = {
        "n1ci2co3i20x40x301k3s2p1",     "n1ci8co1i30x70x300k3s2p1",
        "n1ci2co3i30x40x401k3s2p1bf16", "n1ci3co4i26x70x311k2s2f16",
        "n1ci3co6g3i40x61x301k1s2x1x1", "n2ci3co2i12x70x39k2x2x3s2x2x5p0x0x1op0x0x1f64",
    };
    rng r = {seed + 78};
    int all = sizeof texts / sizeof *texts, count = all * test_count(100) / 100; /* long ones */
    for (int i = 0; i < count && i < all; i++) {
        convt3d_problem p;
        convt3d_error err;
        if (convt3d_problem_parse(texts[i], &p, NULL, 0, &err)) fail_msg("%s", err.text);
        check_direction(&r, &p, CONVT3D_FORWARD, SMALL_BY_SMALL, LAYER_DENSE);
    }
}

#define AT_LEAST(field, percent)                                                                   \
    do {                                                                                           \
        if ((int64_t)(field)*100 < (int64_t)(percent)*seen.problems)                               \
            fail_msg("only %lld of %d problems: %s", (long long)(field), seen.problems, #field);   \
    } while (0)

/* Rows and channels of every number around the sizes of tiles, so that every tile of an
 * ISA and every way to cover a row with tiles occurs. */
static void tiles_of_every_size(void **state) {
    (void)state;
    static const int channels[] = {1, 2, 3, 4, 7, 12, 16, 25, 33, 48, 64, 80};
    static const char *const rests[] = {"k3s2p1", "k1x1x3s1x1x2p0x0x1", "k2s2",
                                        "k1x2x4s1x1x2p0x0x1"};
    rng r = {seed + 78};
    const int kinds = sizeof channels / sizeof *channels, ends = sizeof rests / sizeof *rests;
    const int all = 40 * kinds * ends, count = test_count(all) / 3;
    for (int i = 0; i < count; i++) {
        const int pick = (int)((int64_t)i * 7919 % all); /* prime: any of them, none twice */
        char text[128];
        convt3d_problem p;
        convt3d_error err;
        snprintf(text, sizeof text, "n1ci%dco%di2x%dx%d%s", channels[i % kinds],
                 channels[pick / ends % kinds], i % 2 ? 3 : 1, pick / ends / kinds + 1,
                 rests[pick % ends]);
        if (convt3d_problem_parse(text, &p, NULL, 0, &err)) fail_msg("%s", err.text);
        note_problem(&p);
        for (int d = CONVT3D_FORWARD; d <= CONVT3D_BACKWARD_WEIGHT; d++)
            check_direction(&r, &p, (convt3d_direction)d, SMALL_BY_SMALL, 0);
    }
}

/* A test that is mostly zeros, or leaves a kind of problem out, proves little. */
static void everything_was_covered(void **state) {
    (void)state;
    print_message("%d problems, %lld values, %lld not zero\n", seen.problems,
                  (long long)seen.values, (long long)seen.nonzero);
    assert_true(seen.nonzero * 100 > seen.values * 40);
    AT_LEAST(seen.empty, 1);
    AT_LEAST(seen.unbatched, 10);
    AT_LEAST(seen.doubles, 15);
    AT_LEAST(seen.halves, 15);
    for (int mode = 0; mode < 4; mode++) AT_LEAST(seen.modes[mode], 8);
    AT_LEAST(seen.grouped, 15);
    AT_LEAST(seen.depthwise, 4);
    AT_LEAST(seen.cropped, 10);
    AT_LEAST(seen.holes, 15);
    AT_LEAST(seen.dilated_strided, 30);
    AT_LEAST(seen.output_padded, 20);
    AT_LEAST(seen.op_beyond_stride, 10);
    AT_LEAST(seen.asymmetric, 20);
    AT_LEAST(seen.with_bias, 100);
    AT_LEAST(seen.packed, 100);
    AT_LEAST(seen.packed_elsewhere, 50);
    AT_LEAST(seen.scratch, 100);
    AT_LEAST(seen.accumulated, 100);
    AT_LEAST(seen.threaded, 100);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_integers),         cmocka_unit_test(wide_operands),
        cmocka_unit_test(long_operands),          cmocka_unit_test(larger_problems),
        cmocka_unit_test(streamed_results),       cmocka_unit_test(tiles_of_every_size),
        cmocka_unit_test(everything_was_covered),
    };
    seed = test_seed(argc, argv);
    return cmocka_run_group_tests_name("layer", tests, NULL, NULL);
}
