/* plan: the ordered list of algorithms, and the choice among them.
 * SPDX-License-Identifier: MIT */
#include "plan.h"
#include "cpu.h"
#include "error.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Best first; the first that accepts the problem wins. */
static const convt3d_algorithm *const lists[3][3] = {
    [CONVT3D_FORWARD] = {&convt3d_engine_correlate, &convt3d_reference_algorithm},
    [CONVT3D_BACKWARD_INPUT] = {&convt3d_engine_correlate, &convt3d_reference_algorithm},
    [CONVT3D_BACKWARD_WEIGHT] = {&convt3d_engine_outer, &convt3d_reference_algorithm},
};

const char *convt3d_direction_name(convt3d_direction direction) {
    static const char *const names[3] = {"forward", "backward_input", "backward_weight"};
    return (unsigned)direction < 3 ? names[direction] : NULL;
}

void convt3d_options_init(convt3d_options *options) {
    if (options)
        *options = (convt3d_options){.struct_size = sizeof *options, .negative_slope = 0.01};
}

convt3d_status convt3d_options_take(const convt3d_options *options, convt3d_options *taken,
                                    convt3d_error *err) {
    convt3d_options_init(taken);
    if (!options) return CONVT3D_OK;
    const size_t size = options->struct_size;
    if (size != sizeof *taken && size != offsetof(convt3d_options, activation) &&
        size != offsetof(convt3d_options, precision))
        return convt3d_fail(err, CONVT3D_ARG,
                            "options.struct_size is %zu, but must be %zu: call "
                            "convt3d_options_init() first",
                            size, sizeof *taken);
    memcpy(taken, options, size);
    taken->struct_size = sizeof *taken;
    return CONVT3D_OK;
}

int convt3d_grow(size_t *total, size_t count, size_t bytes) {
    size_t more;
    return !__builtin_mul_overflow(count, bytes, &more) &&
           !__builtin_add_overflow(*total, more, total) && *total <= PTRDIFF_MAX;
}

size_t convt3d_round_up(size_t bytes) {
    return (bytes + CONVT3D_ALIGN - 1) / CONVT3D_ALIGN * CONVT3D_ALIGN;
}

/* What runs beside the algorithm, where that is an engine. */
static convt3d_status choose_direct(convt3d_plan *plan, convt3d_error *err) {
    const convt3d_algorithm *direct = &convt3d_engine_matrix;
    const char *why;
    int accepted = 0;
    if (strcmp(plan->algorithm->name, direct->name) != 0) return CONVT3D_OK;
    convt3d_status status = direct->prepare(plan, &accepted, &why, err);
    if (accepted) plan->direct = direct;
    return status;
}

static convt3d_status choose(convt3d_plan *plan, const char *forced, convt3d_error *err) {
    convt3d_text declined = {plan->declined, sizeof plan->declined, 0};
    const convt3d_algorithm *const *list = lists[plan->direction];
    int known = 0;
    for (int i = 0; list[i]; i++) {
        const char *why = "not the one asked for";
        int accepted = 0;
        if (!forced || strcmp(forced, list[i]->name) == 0) {
            known = 1;
            convt3d_status status = list[i]->prepare(plan, &accepted, &why, err);
            if (status) return status;
        }
        if (accepted) {
            plan->algorithm = list[i];
            if (!plan->packed_whole) plan->packed_whole = plan->packed_bytes;
            return choose_direct(plan, err);
        }
        convt3d_text_add(&declined, "declined: %s: %s\n", list[i]->name, why);
    }
    if (!known)
        return convt3d_fail(err, CONVT3D_ARG,
                            "options.algorithm is '%.40s', but must be 'engine' or 'reference'",
                            forced);
    return convt3d_fail(err, CONVT3D_UNSUPPORTED, "no algorithm does this problem: %s",
                        plan->declined);
}

size_t convt3d_bias_bytes(const convt3d_plan *plan) {
    const convt3d_geometry *g = &plan->geometry;
    if (plan->direction != CONVT3D_FORWARD || g->stored == g->element) return 0;
    return convt3d_round_up((size_t)g->out_channels * g->element); /* less than the output's */
}

/* The whole scratch of a run: room to align, packed weights, the bias, the algorithm's. */
static int scratch_bytes(const convt3d_plan *plan, int32_t threads, int packed, size_t *bytes) {
    /* backward_weight has no use for packed weights: there they change nothing. */
    const int both = plan->direct && (!packed || plan->direction == CONVT3D_BACKWARD_WEIGHT);
    size_t own, direct = 0;
    if (both && !plan->direct->scratch(plan, threads, &direct)) return 0;
    if (!plan->algorithm->scratch(plan, threads, &own) ||
        (!packed && !convt3d_grow(&own, 1, convt3d_round_up(plan->packed_bytes))))
        return 0;
    *bytes = CONVT3D_ALIGN;
    return convt3d_grow(bytes, 1, convt3d_bias_bytes(plan)) &&
           convt3d_grow(bytes, 1, own > direct ? own : direct);
}

static convt3d_status check_direction(convt3d_direction direction, convt3d_error *err) {
    if (convt3d_direction_name(direction)) return CONVT3D_OK;
    return convt3d_fail(err, CONVT3D_ARG,
                        "direction is %d, but must be CONVT3D_FORWARD, "
                        "CONVT3D_BACKWARD_INPUT or CONVT3D_BACKWARD_WEIGHT",
                        (int)direction);
}

static convt3d_status check_precision(const convt3d_options *options, convt3d_error *err) {
    if (convt3d_precision_name(options->precision)) return CONVT3D_OK;
    return convt3d_fail(err, CONVT3D_ARG,
                        "options.precision is %d, but must be 0 to %d (convt3d_precision)",
                        (int)options->precision, (int)CONVT3D_PRECISION_MEDIUM);
}

static convt3d_status check_activation(convt3d_direction direction, const convt3d_options *options,
                                       convt3d_dtype dtype, convt3d_error *err) {
    const char *name = convt3d_activation_name(options->activation);
    const double most = dtype == CONVT3D_FLOAT64 ? DBL_MAX : FLT_MAX;
    if (!name)
        return convt3d_fail(err, CONVT3D_ARG,
                            "options.activation is %d, but must be 0 to %d (convt3d_activation)",
                            (int)options->activation, (int)CONVT3D_ACTIVATION_TANH);
    if (direction != CONVT3D_FORWARD && options->activation != CONVT3D_ACTIVATION_NONE)
        return convt3d_fail(err, CONVT3D_ARG,
                            "options.activation is %s, but must be none in a %s plan: an "
                            "activation is a part of forward alone",
                            name, convt3d_direction_name(direction));
    if (!(fabs(options->negative_slope) <= most))
        return convt3d_fail(
            err, CONVT3D_ARG, "options.negative_slope is %g, but must be finite in %s",
            options->negative_slope, dtype == CONVT3D_FLOAT64 ? "float64" : "float32");
    return CONVT3D_OK;
}

convt3d_status convt3d_plan_create(const convt3d_problem *problem, convt3d_direction direction,
                                   const convt3d_options *options, convt3d_plan **out,
                                   convt3d_error *err) {
    convt3d_plan local = {0}, *plan;
    convt3d_options taken;
    if (!out) return convt3d_fail(err, CONVT3D_ARG, "plan is NULL");
    *out = NULL;
    convt3d_status status = check_direction(direction, err);
    if (!status) status = convt3d_options_take(options, &taken, err);
    if (!status) status = convt3d_problem_check(problem, &local.geometry, err);
    if (!status) status = check_activation(direction, &taken, problem->dtype, err);
    if (!status) status = check_precision(&taken, err);
    if (!status) status = convt3d_threads_choose(taken.threads, &local.threads, err);
    if (!status) status = convt3d_kernels_choose(taken.isa, &local.kernels, err);
    if (status) return status;
    local.problem = *problem;
    local.direction = direction;
    local.activation = taken.activation;
    local.precision = taken.precision;
    local.negative_slope =
        problem->dtype == CONVT3D_FLOAT64 ? taken.negative_slope : (float)taken.negative_slope;
    local.type = local.kernels->type[problem->dtype == CONVT3D_FLOAT64];
    local.movers = convt3d_movers_of(&local, problem->dtype);
    plan = malloc(sizeof *plan);
    if (!plan) return convt3d_fail_nomem(err, "a plan", sizeof *plan);
    *plan = local;
    status = choose(plan, taken.algorithm, err);
    size_t bytes;
    if (!status && !scratch_bytes(plan, plan->threads, 0, &bytes))
        status = convt3d_fail(err, CONVT3D_OVERFLOW,
                              "the scratch of a run on %d threads would take more bytes than the "
                              "address space has",
                              plan->threads);
    if (status) {
        convt3d_plan_free(plan);
        return status;
    }
    *out = plan;
    return CONVT3D_OK;
}

void convt3d_plan_free(convt3d_plan *plan) {
    if (plan) {
        free(plan->details);
        free(plan->direct_details);
        free(plan);
    }
}

int32_t convt3d_plan_threads(const convt3d_plan *plan) {
    return plan ? plan->threads : 0;
}

size_t convt3d_plan_scratch_size(const convt3d_plan *plan, int32_t threads, int packed_weights) {
    size_t bytes;
    if (!plan) return 0;
    if (threads < 1 || threads > plan->threads) threads = plan->threads;
    scratch_bytes(plan, threads, packed_weights, &bytes); /* fits: it did for plan->threads */
    return bytes;
}

size_t convt3d_plan_describe(const convt3d_plan *plan, char *buffer, size_t size) {
    convt3d_text text = {buffer, buffer ? size : 0, 0};
    char problem[512];
    convt3d_text_add(&text, "%s", ""); /* the final zero, whatever follows */
    if (!plan) return 0;
    convt3d_problem_format(&plan->problem, problem, sizeof problem);
    convt3d_text_add(&text, "problem: %s\ndirection: %s\nisa: %s\nthreads: %d\n", problem,
                     convt3d_direction_name(plan->direction), plan->kernels->name, plan->threads);
    if (plan->problem.dtype != CONVT3D_FLOAT64)
        convt3d_text_add(&text, "precision: %s\n", convt3d_precision_name(plan->precision));
    if (plan->activation == CONVT3D_ACTIVATION_LEAKY_RELU)
        convt3d_text_add(&text, "activation: leaky_relu, negative_slope %g\n",
                         plan->negative_slope);
    else if (plan->activation != CONVT3D_ACTIVATION_NONE)
        convt3d_text_add(&text, "activation: %s\n", convt3d_activation_name(plan->activation));
    convt3d_text_add(&text, "%salgorithm: %s\n", plan->declined, plan->algorithm->name);
    plan->algorithm->describe(plan, &text);
    if (plan->direct) plan->direct->describe(plan, &text);
    convt3d_text_add(&text, "scratch: %zu bytes with packed weights of %zu bytes\n",
                     convt3d_plan_scratch_size(plan, 0, 1), plan->packed_whole);
    return text.length;
}
