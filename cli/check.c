/* check: the self-test of this build on this CPU.  Integer data makes every
 * sum exact, and its one rounding to 16 bits, so that the engine must equal the
 * reference bit for bit, on every instruction set and any number of threads.
 * SPDX-License-Identifier: MIT */
#include "check.h"
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* One problem with its data, and room for two results of each kind. */
enum {
    INPUT,
    WEIGHT,
    BIAS,
    GRAD_OUTPUT,
    SOURCES
};
enum {
    OUTPUT,
    GRAD_INPUT,
    GRAD_WEIGHT,
    GRAD_BIAS,
    RESULTS
};
typedef struct trial {
    convt3d_problem problem;
    convt3d_tensor source[SOURCES];
    convt3d_tensor result[2][RESULTS]; /* the reference's, the engine's */
} trial;

typedef struct tally {
    int64_t runs, declined, nonzero;
} tally;

/* Everything that one problem needs in all directions.  Results start as NaN:
 * an element that a run forgets differs from any other. */
static int trial_create(uint64_t *state, convt3d_dtype dtype, trial *t) {
    int64_t limit, out[5], missing = 0;
    check_problem(state, dtype, &t->problem, &limit);
    const convt3d_problem *p = &t->problem;
    convt3d_problem_output_shape(p, out, NULL);
    /* Every other layer of 16 bits has the float32 that may stand beside them. */
    int wide_beside = convt3d_dtype_size(dtype) == 2 && check_random(state) % 2;
    convt3d_dtype beside = wide_beside ? CONVT3D_FLOAT32 : dtype;
    int64_t in[5] = {p->batch, p->in_channels, p->input_size[0], p->input_size[1],
                     p->input_size[2]};
    int64_t weight[5] = {p->in_channels, p->out_channels / p->groups, p->kernel_size[0],
                         p->kernel_size[1], p->kernel_size[2]};
    t->source[INPUT] = check_tensor(state, dtype, 5, in);
    t->source[WEIGHT] = check_tensor(state, dtype, 5, weight);
    t->source[BIAS] = check_tensor(state, beside, 1, &p->out_channels);
    t->source[GRAD_OUTPUT] = check_tensor(state, dtype, 5, out);
    t->result[0][OUTPUT] = check_tensor(state, dtype, 5, out);
    t->result[0][GRAD_INPUT] = check_tensor(state, dtype, 5, in);
    t->result[0][GRAD_WEIGHT] = check_tensor(state, beside, 5, weight);
    t->result[0][GRAD_BIAS] = check_tensor(state, beside, 1, &p->out_channels);
    for (int i = 0; i < RESULTS; i++) t->result[1][i] = check_tensor_like(&t->result[0][i]);
    for (int i = 0; i < SOURCES; i++) missing += !t->source[i].data;
    for (int i = 0; i < RESULTS; i++) missing += !t->result[0][i].data + !t->result[1][i].data;
    if (missing) return cli_fail("memory for a problem could not be had");
    for (int i = 0; i < SOURCES; i++) check_fill_integers(state, &t->source[i], limit);
    for (int i = 0; i < RESULTS; i++) {
        check_fill_nan(&t->result[0][i]);
        check_fill_nan(&t->result[1][i]);
    }
    return 0;
}

static void trial_free(trial *t) {
    for (int i = 0; i < SOURCES; i++) free(t->source[i].data);
    for (int i = 0; i < RESULTS; i++) {
        free(t->result[0][i].data);
        free(t->result[1][i].data);
    }
}

/* One direction, by the plan that the options make. */
static convt3d_status run(const trial *t, convt3d_direction direction,
                          const convt3d_options *options, const convt3d_tensor *result,
                          convt3d_error *err) {
    const convt3d_tensor *source = t->source;
    convt3d_plan *plan;
    convt3d_status status = convt3d_plan_create(&t->problem, direction, options, &plan, err);
    if (status != CONVT3D_OK) return status;
    if (direction == CONVT3D_FORWARD)
        status = convt3d_forward(plan, &source[INPUT], &source[WEIGHT], NULL, &source[BIAS],
                                 &result[OUTPUT], NULL, err);
    else if (direction == CONVT3D_BACKWARD_INPUT)
        status = convt3d_backward_input(plan, &source[GRAD_OUTPUT], &source[WEIGHT], NULL,
                                        &result[GRAD_INPUT], CONVT3D_OVERWRITE, NULL, err);
    else
        status = convt3d_backward_weight(plan, &source[INPUT], &source[GRAD_OUTPUT],
                                         &result[GRAD_WEIGHT], &result[GRAD_BIAS],
                                         CONVT3D_OVERWRITE, NULL, err);
    convt3d_plan_free(plan);
    return status;
}

/* Says what differs, and the problem string with which anybody can see it. */
static int compare(const trial *t, convt3d_direction direction, const convt3d_options *engine,
                   tally *sum) {
    static const int first[3] = {OUTPUT, GRAD_INPUT, GRAD_WEIGHT};
    int last = direction == CONVT3D_BACKWARD_WEIGHT ? GRAD_BIAS : first[direction];
    for (int i = first[direction]; i <= last; i++) {
        const convt3d_tensor *expected = &t->result[0][i], *found = &t->result[1][i];
        int64_t at = check_compare(expected, found);
        sum->nonzero += check_nonzero(expected);
        if (at < 0) continue;
        char text[256];
        convt3d_problem_format(&t->problem, text, sizeof(text));
        return cli_fail("%s on %s with %d threads differs from the reference for %s: element "
                        "%" PRId64 " of %s is %.17g in the place of %.17g",
                        convt3d_direction_name(direction), engine->isa, engine->threads, text, at,
                        i == GRAD_BIAS ? "grad_bias" : "the result", check_element(found, at),
                        check_element(expected, at));
    }
    return 0;
}

/* One problem in all three directions.  The engine runs first: whether it takes
 * the problem decides whether there is anything to compare. */
static int try_problem(uint64_t *state, const char *isa, convt3d_dtype dtype, tally *sum) {
    convt3d_options reference, engine;
    convt3d_error err;
    trial t = {0};
    convt3d_options_init(&reference);
    convt3d_options_init(&engine);
    reference.algorithm = "reference";
    reference.threads = 1;
    engine.algorithm = "engine";
    engine.isa = isa;
    engine.threads = 1 + (int32_t)(check_random(state) % 3);
    int status = trial_create(state, dtype, &t);
    for (int d = CONVT3D_FORWARD; status == 0 && d <= CONVT3D_BACKWARD_WEIGHT; d++) {
        convt3d_direction direction = (convt3d_direction)d;
        convt3d_status result = run(&t, direction, &engine, t.result[1], &err);
        sum->declined += result == CONVT3D_UNSUPPORTED;
        if (result == CONVT3D_UNSUPPORTED) continue;
        if (result == CONVT3D_OK) result = run(&t, direction, &reference, t.result[0], &err);
        sum->runs++;
        status =
            result == CONVT3D_OK ? compare(&t, direction, &engine, sum) : cli_fail_status(&err);
    }
    trial_free(&t);
    return status;
}

static int check_isa(const char *isa, uint64_t seed, int64_t count) {
    static const convt3d_dtype dtypes[4] = {CONVT3D_FLOAT32, CONVT3D_FLOAT64, CONVT3D_BFLOAT16,
                                            CONVT3D_FLOAT16};
    for (int i = 0; i < 4; i++) {
        uint64_t state = seed;
        tally sum = {0};
        int status = 0;
        for (int64_t n = 0; status == 0 && n < count; n++)
            status = try_problem(&state, isa, dtypes[i], &sum);
        if (status) return status;
        printf("%-12s %s: %" PRId64 " problems, %" PRId64 " runs equal the reference, %" PRId64
               " declined\n",
               isa, convt3d_dtype_name(dtypes[i]), count, sum.runs, sum.declined);
        fflush(stdout);
        /* A check that compared nothing, or zeros with zeros, has shown nothing. */
        if (sum.runs == 0) return cli_fail("the engine declined every problem on %s", isa);
        if (sum.nonzero == 0) return cli_fail("every result on %s was zero", isa);
    }
    return 0;
}

static int check(const cli_args *args) {
    convt3d_options options;
    uint64_t seed;
    int64_t count;
    int checked = 0;
    if (cli_run_options(args, &options) || cli_seed(args, (uint64_t)time(NULL), &seed) ||
        cli_integer(args, CLI_OPT_COUNT, 1, 1000000, 200, &count))
        return CLI_USAGE;
    if (options.isa && !convt3d_isa_supported(options.isa))
        return cli_fail("this CPU doesn't have %s", options.isa);
    printf("convt3d %s, seed %" PRIu64 "\n", convt3d_version(), seed);
    fflush(stdout); /* so that the seed is known even if this crashes */
    for (int i = 0; convt3d_isa_name(i); i++) {
        const char *isa = options.isa ? options.isa : convt3d_isa_name(i);
        if (!convt3d_isa_supported(isa)) continue;
        int status = check_isa(isa, seed, count);
        if (status) return status;
        checked++;
        if (options.isa) break;
    }
    return checked ? 0 : cli_fail("this build has no instruction set that this CPU has");
}

const cli_command cli_check = {
    .name = "check",
    .summary = "Test this build on this CPU: engine against reference.",
    .takes = CLI_SET(CLI_OPT_ISA) | CLI_SET(CLI_OPT_SEED) | CLI_SET(CLI_OPT_COUNT),
    .run = check,
};
