/* shape: what a layer does to a size, before anything is computed.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Taps k meet an output whose phase is k*dilation mod stride.  Only multiples
 * of gcd(stride, dilation) are met; among those the taps go round in turn. */
static void count_taps(int64_t kernel_size, int64_t stride, int64_t dilation, int64_t *fewest,
                       int64_t *most) {
    int64_t gcd = stride, rest = dilation;
    while (rest != 0) {
        int64_t next = gcd % rest;
        gcd = rest;
        rest = next;
    }
    int64_t phases = stride / gcd;
    *fewest = gcd > 1 ? 0 : kernel_size / phases;
    *most = kernel_size / phases + (kernel_size % phases != 0);
}

/* Sizes from N,C,D,H,W or the last four or three of these. */
static int take_input_size(const cli_args *args, cli_layer *layer, int *rank) {
    char why[CLI_WHY];
    int64_t values[CLI_VALUES];
    convt3d_problem *problem = &layer->problem;
    int count = cli_integers(args->text[CLI_OPT_INPUT_SIZE], 0, INT64_MAX,
                             CLI_COUNT(3) | CLI_COUNT(4) | CLI_COUNT(5), values, why);
    if (count == 0) return cli_usage("--input-size: %s", why);
    memcpy(problem->input_size, values + count - 3, sizeof(problem->input_size));
    *rank = count == 4 ? 4 : 5;
    if (count == 5) problem->batch = values[0];
    if (count == 3) return 0;
    return cli_layer_state(layer, CLI_OPT_IN_CHANNELS, &values[count - 4], "--input-size");
}

/* The weight's shape, from a file or from options. */
static int take_weight(const cli_args *args, cli_layer *layer) {
    convt3d_problem *problem = &layer->problem;
    cli_parameters parameters;
    if (args->text[CLI_OPT_MODULE] || args->text[CLI_OPT_WEIGHT]) {
        int status = cli_parameters_load(args, layer, &parameters);
        if (status == 0) cli_parameters_free(&parameters);
        return status;
    }
    if (!layer->source[CLI_OPT_KERNEL_SIZE])
        return cli_usage("--kernel-size, --weight or --module is missing");
    if (args->text[CLI_OPT_BIAS]) return cli_usage("--weight is missing");
    problem->bias = !args->text[CLI_OPT_NO_BIAS];
    return 0;
}

/* One line per tensor and one per axis, as labels and numbers that a script can
 * take apart. */
static int print_sizes(const convt3d_problem *problem, int rank, const int64_t *shape) {
    int64_t input[5] = {problem->batch, problem->in_channels, problem->input_size[0],
                        problem->input_size[1], problem->input_size[2]};
    int64_t weight[5] = {problem->in_channels, problem->out_channels / problem->groups,
                         problem->kernel_size[0], problem->kernel_size[1], problem->kernel_size[2]};
    int64_t smallest[3], largest[3];
    char text[CLI_SHAPE_TEXT];
    convt3d_error err;
    if (convt3d_problem_output_range(problem, smallest, largest, &err) != CONVT3D_OK)
        return cli_usage_status(&err);
    printf("input:   %s %s\n", cli_shape_text(rank, input + 5 - rank, text),
           convt3d_dtype_name(problem->dtype));
    printf("weight:  %s\n", cli_shape_text(5, weight, text));
    printf("output:  %s\n", cli_shape_text(rank, shape + 5 - rank, text));
    for (int a = 0; a < 3; a++) {
        int64_t fewest, most;
        count_taps(problem->kernel_size[a], problem->stride[a], problem->dilation[a], &fewest,
                   &most);
        printf("%-8s %" PRId64 " to %" PRId64 "; legal output_size %" PRId64 " to %" PRId64
               " (output_padding 0 to %" PRId64 "); taps per output %" PRId64 " to %" PRId64 "%s\n",
               cli_axis[a], problem->input_size[a], shape[2 + a], smallest[a], largest[a],
               largest[a] - smallest[a], fewest, most,
               fewest == most ? ", even" : ", uneven: checkerboard pattern");
    }
    return 0;
}

/* Bytes of the tensors of one direction; plans of more than SIZE_MAX bytes in
 * any of them were refused, so that only the sum needs care. */
static uint64_t tensor_bytes(const convt3d_problem *problem, const int64_t *shape,
                             convt3d_direction direction) {
    uint64_t element = convt3d_dtype_size(problem->dtype);
    uint64_t part[4] = {element, element, element, 0}, sum = 0;
    part[0] *= (uint64_t)problem->batch * (uint64_t)problem->in_channels;
    part[1] *= (uint64_t)problem->in_channels * (uint64_t)(problem->out_channels / problem->groups);
    for (int i = 0; i < 5; i++) part[2] *= (uint64_t)shape[i];
    for (int a = 0; a < 3; a++) {
        part[0] *= (uint64_t)problem->input_size[a];
        part[1] *= (uint64_t)problem->kernel_size[a];
    }
    if (problem->bias && direction != CONVT3D_BACKWARD_INPUT)
        part[3] = element * (uint64_t)problem->out_channels;
    for (int i = 0; i < 4; i++)
        if (__builtin_add_overflow(sum, part[i], &sum)) return UINT64_MAX;
    return sum;
}

/* Plans are made and thrown away: only they know their scratch. */
static int print_memory(const convt3d_problem *problem, const convt3d_options *options,
                        const int64_t *shape) {
    static const convt3d_direction directions[3] = {CONVT3D_FORWARD, CONVT3D_BACKWARD_INPUT,
                                                    CONVT3D_BACKWARD_WEIGHT};
    for (int i = 0; i < 3; i++) {
        convt3d_plan *plan;
        convt3d_error err;
        if (convt3d_plan_create(problem, directions[i], options, &plan, &err) != CONVT3D_OK)
            return cli_usage_status(&err);
        int threads = convt3d_plan_threads(plan);
        printf("%s: %" PRIu64 " bytes of tensors, %zu bytes of scratch on %d thread%s\n",
               convt3d_direction_name(directions[i]), tensor_bytes(problem, shape, directions[i]),
               convt3d_plan_scratch_size(plan, 0, 0), threads, threads == 1 ? "" : "s");
        convt3d_plan_free(plan);
    }
    return 0;
}

static int shape(const cli_args *args) {
    cli_layer layer;
    convt3d_problem *problem = &layer.problem;
    convt3d_options options;
    convt3d_error err;
    int64_t output[5];
    int rank = 5;
    int status = cli_layer_parse(args, &layer);
    if (status == 0) status = cli_run_options(args, &options);
    if (status == 0) status = cli_run_check(&options);
    if (status == 0) status = take_weight(args, &layer);
    if (status == 0) status = take_input_size(args, &layer, &rank);
    if (status) return status;
    if (!layer.source[CLI_OPT_IN_CHANNELS] && problem->in_channels == 0) problem->in_channels = 1;
    if (!layer.source[CLI_OPT_OUT_CHANNELS]) problem->out_channels = problem->in_channels;
    if (layer.has_output_size &&
        convt3d_problem_set_output_size(problem, layer.output_size, &err) != CONVT3D_OK)
        return cli_usage_status(&err);
    if (convt3d_problem_output_shape(problem, output, &err) != CONVT3D_OK)
        return cli_usage_status(&err);
    status = print_sizes(problem, rank, output);
    return status ? status : print_memory(problem, &options, output);
}

const cli_command cli_shape = {
    .name = "shape",
    .synopsis = "--input-size=N,C,D,H,W --kernel-size=K\n--input-size=N,C,D,H,W --module=M",
    .summary = "Show sizes, legal output sizes, overlap and memory of a layer.",
    .takes = CLI_SET_ARGUMENTS | CLI_SET_SIZES | CLI_SET_PARAMETERS | CLI_SET_RUN |
             CLI_SET(CLI_OPT_INPUT_SIZE) | CLI_SET(CLI_OPT_OUTPUT_SIZE) | CLI_SET(CLI_OPT_NO_BIAS),
    .needs = CLI_SET(CLI_OPT_INPUT_SIZE),
    .run = shape,
};
