/* forward: output = layer(input), from files to a file.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

/* Where voxel o of the output lies in the input, in the order x, y, z of a
 * NIfTI file: the middle of the kernel is what a voxel's value is spread
 * around. */
static void follow_input(const convt3d_problem *problem, const io_array *input, io_array *output) {
    double scale[3], shift[3];
    if (!input->space.present) return;
    for (int a = 0; a < 3; a++) {
        double stride = (double)problem->stride[a];
        double middle = (double)problem->dilation[a] * (double)(problem->kernel_size[a] - 1) / 2;
        scale[2 - a] = 1 / stride;
        shift[2 - a] = ((double)problem->padding_before[a] - middle) / stride;
    }
    output->space = io_space_follow(&input->space, scale, shift);
}

static int compute(const convt3d_problem *problem, const convt3d_options *options,
                   const cli_parameters *parameters, const io_array *input,
                   const io_array *output) {
    convt3d_tensor x = cli_tensor(input), w = cli_tensor(&parameters->weight);
    convt3d_tensor b = cli_tensor(&parameters->bias), y = cli_tensor(output);
    cli_progress progress;
    convt3d_run run;
    convt3d_plan *plan;
    convt3d_error err;
    convt3d_status status = convt3d_plan_create(problem, CONVT3D_FORWARD, options, &plan, &err);
    if (status != CONVT3D_OK) return cli_fail_status(&err);
    cli_progress_begin(&progress, "forward", &run);
    status = convt3d_forward(plan, &x, &w, NULL, parameters->bias.rank ? &b : NULL, &y, &run, &err);
    cli_progress_end(&progress);
    convt3d_plan_free(plan);
    return status == CONVT3D_OK ? 0 : cli_fail_status(&err);
}

static int forward(const cli_args *args) {
    cli_layer layer;
    cli_parameters parameters;
    convt3d_options options;
    io_array input = {0};
    cli_result result = {.id = CLI_OPT_OUTPUT};
    int64_t shape[5];
    int status = cli_layer_parse(args, &layer);
    if (status == 0) status = cli_run_options(args, &options);
    if (status == 0) status = cli_results_check(args, &result, 1);
    if (status == 0) status = cli_parameters_load(args, &layer, &parameters);
    if (status) return status;
    result.dtype = layer.problem.dtype;
    status = cli_results_check_dtypes(args, &result, 1);
    if (status == 0) status = cli_volume_load(args, CLI_OPT_INPUT, layer.problem.dtype, &input);
    if (status == 0) status = cli_layer_bind(args, &layer, &parameters, &input, shape);
    if (status == 0) status = cli_result_create(&result, input.rank, shape + 5 - input.rank);
    if (status == 0) status = compute(&layer.problem, &options, &parameters, &input, &result.array);
    if (status == 0) {
        follow_input(&layer.problem, &input, &result.array);
        status = cli_results_save(args, &result, 1);
    }
    io_array_free(&result.array);
    io_array_free(&input);
    cli_parameters_free(&parameters);
    return status;
}

const cli_command cli_forward = {
    .name = "forward",
    .synopsis = "--input=X --weight=W --output=Y\n--input=X --module=M.safetensors --output=Y",
    .summary = "Compute the layer's output.",
    .takes = CLI_SET_ARGUMENTS | CLI_SET_PARAMETERS | CLI_SET_RUN | CLI_SET(CLI_OPT_INPUT) |
             CLI_SET(CLI_OPT_OUTPUT) | CLI_SET(CLI_OPT_OUTPUT_SIZE) | CLI_SET_ACTIVATION,
    .needs = CLI_SET(CLI_OPT_INPUT) | CLI_SET(CLI_OPT_OUTPUT),
    .run = forward,
};
