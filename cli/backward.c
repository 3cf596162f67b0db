/* backward: the gradients of the layer, each written if it is asked for.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <string.h>

enum {
    GRAD_INPUT,
    GRAD_WEIGHT,
    GRAD_BIAS
};
static const cli_id result_id[CLI_RESULTS] = {CLI_OPT_GRAD_INPUT, CLI_OPT_GRAD_WEIGHT,
                                              CLI_OPT_GRAD_BIAS};

typedef struct backward_job {
    cli_layer layer;
    cli_parameters parameters;
    convt3d_options options;
    convt3d_dtype weight_dtype; /* of grad_weight and grad_bias; 0: the layer's */
    io_array input, grad_output;
    cli_result results[CLI_RESULTS]; /* those that are asked for */
    int count;
    int index[CLI_RESULTS]; /* GRAD_INPUT, ...: which result it is, or -1 */
} backward_job;

/* --grad-weight-dtype alone; what it may be depends on the layer. */
static int parse_weight_dtype(const cli_args *args, convt3d_dtype *dtype) {
    const char *text = args->text[CLI_OPT_GRAD_WEIGHT_DTYPE];
    *dtype = (convt3d_dtype)0;
    if (!text) return 0;
    *dtype = cli_dtype_parse(text);
    if (!*dtype) return cli_usage("--grad-weight-dtype: '%s'; legal are " CLI_DTYPES, text);
    if (args->text[CLI_OPT_GRAD_WEIGHT] || args->text[CLI_OPT_GRAD_BIAS]) return 0;
    return cli_usage("--grad-weight-dtype needs --grad-weight or --grad-bias");
}

/* Every gradient has the layer's type, but those of a layer of 16 bits with respect
 * to weight and bias may be float32. */
static int choose_dtypes(const cli_args *args, backward_job *job) {
    convt3d_dtype layer = job->layer.problem.dtype, weight = job->weight_dtype;
    int narrow = convt3d_dtype_size(layer) == 2;
    if (!weight) weight = layer;
    for (int i = 0; i < job->count; i++)
        job->results[i].dtype = i == job->index[GRAD_INPUT] ? layer : weight;
    if (weight == layer || (narrow && weight == CONVT3D_FLOAT32)) return 0;
    /* Without --dtype it is the weight's file that decided the layer's. */
    int (*say)(const char *format, ...) = args->text[CLI_OPT_DTYPE] ? cli_usage : cli_fail;
    return say("--grad-weight-dtype: %s; legal for a layer of %s %s", convt3d_dtype_name(weight),
               convt3d_dtype_name(layer), narrow ? "are that and float32" : "is that alone");
}

/* Unless an option fixes it, the output's size is what grad_output has: a
 * layer may be run with any output_size that it can reach. */
static int bind(const cli_args *args, backward_job *job) {
    cli_layer *layer = &job->layer;
    int64_t shape[5];
    if (!layer->has_output_size && !args->text[CLI_OPT_OUTPUT_PADDING]) {
        memcpy(layer->output_size, job->grad_output.size + job->grad_output.rank - 3,
               sizeof(layer->output_size));
        layer->has_output_size = 1;
    }
    return cli_layer_bind(args, layer, &job->parameters, &job->input, shape);
}

/* The input's place in space; or, if only grad_output has one, what follows
 * from that: voxel i lies at output coordinate i*stride - padding + middle. */
static void place_grad_input(const backward_job *job, io_array *grad_input) {
    const convt3d_problem *problem = &job->layer.problem;
    double scale[3], shift[3];
    if (job->input.space.present) {
        grad_input->space = job->input.space;
    } else if (job->grad_output.space.present) {
        for (int a = 0; a < 3; a++) {
            scale[2 - a] = (double)problem->stride[a];
            shift[2 - a] =
                (double)problem->dilation[a] * (double)(problem->kernel_size[a] - 1) / 2 -
                (double)problem->padding_before[a];
        }
        grad_input->space = io_space_follow(&job->grad_output.space, scale, shift);
    }
}

/* Before anything runs, so that memory which can't be had costs no time. */
static int create_results(backward_job *job) {
    const convt3d_problem *problem = &job->layer.problem;
    for (int i = 0; i < job->count; i++) {
        cli_result *result = &job->results[i];
        int status;
        if (i == job->index[GRAD_INPUT])
            status = cli_result_create(result, job->input.rank, job->input.size);
        else if (i == job->index[GRAD_WEIGHT])
            status = cli_result_create(result, 5, job->parameters.weight.size);
        else
            status = cli_result_create(result, 1, &problem->out_channels);
        if (status) return status;
    }
    if (job->index[GRAD_INPUT] >= 0)
        place_grad_input(job, &job->results[job->index[GRAD_INPUT]].array);
    return 0;
}

static int run_input(const backward_job *job, const convt3d_plan *plan) {
    convt3d_tensor dy = cli_tensor(&job->grad_output), w = cli_tensor(&job->parameters.weight);
    convt3d_tensor dx = cli_tensor(&job->results[job->index[GRAD_INPUT]].array);
    cli_progress progress;
    convt3d_run run;
    convt3d_error err;
    cli_progress_begin(&progress, "backward_input", &run);
    convt3d_status status =
        convt3d_backward_input(plan, &dy, &w, NULL, &dx, CONVT3D_OVERWRITE, &run, &err);
    cli_progress_end(&progress);
    return status == CONVT3D_OK ? 0 : cli_fail_status(&err);
}

/* Weight and bias in one run: they read the same grad_output. */
static int run_weight(const backward_job *job, const convt3d_plan *plan) {
    int weight = job->index[GRAD_WEIGHT], bias = job->index[GRAD_BIAS];
    convt3d_tensor x = cli_tensor(&job->input), dy = cli_tensor(&job->grad_output), dw, db;
    cli_progress progress;
    convt3d_run run;
    convt3d_error err;
    if (weight >= 0) dw = cli_tensor(&job->results[weight].array);
    if (bias >= 0) db = cli_tensor(&job->results[bias].array);
    cli_progress_begin(&progress, "backward_weight", &run);
    convt3d_status status =
        convt3d_backward_weight(plan, &x, &dy, weight >= 0 ? &dw : NULL, bias >= 0 ? &db : NULL,
                                CONVT3D_OVERWRITE, &run, &err);
    cli_progress_end(&progress);
    return status == CONVT3D_OK ? 0 : cli_fail_status(&err);
}

/* A plan per direction; both results are kept until both runs have succeeded. */
static int compute(const backward_job *job, convt3d_direction direction) {
    convt3d_plan *plan;
    convt3d_error err;
    if (convt3d_plan_create(&job->layer.problem, direction, &job->options, &plan, &err) !=
        CONVT3D_OK)
        return cli_fail_status(&err);
    int status = direction == CONVT3D_BACKWARD_INPUT ? run_input(job, plan) : run_weight(job, plan);
    convt3d_plan_free(plan);
    return status;
}

static int work(const cli_args *args, backward_job *job) {
    convt3d_dtype dtype = job->layer.problem.dtype;
    int status = choose_dtypes(args, job);
    if (status == 0) status = cli_results_check_dtypes(args, job->results, job->count);
    if (status == 0) status = cli_volume_load(args, CLI_OPT_INPUT, dtype, &job->input);
    if (status == 0) status = cli_volume_load(args, CLI_OPT_GRAD_OUTPUT, dtype, &job->grad_output);
    if (status == 0) status = bind(args, job);
    if (status == 0) status = create_results(job);
    if (status == 0 && job->index[GRAD_INPUT] >= 0) status = compute(job, CONVT3D_BACKWARD_INPUT);
    if (status == 0 && (job->index[GRAD_WEIGHT] >= 0 || job->index[GRAD_BIAS] >= 0))
        status = compute(job, CONVT3D_BACKWARD_WEIGHT);
    return status ? status : cli_results_save(args, job->results, job->count);
}

static int backward(const cli_args *args) {
    backward_job job = {0};
    for (int i = 0; i < CLI_RESULTS; i++) {
        job.index[i] = args->text[result_id[i]] ? job.count : -1;
        if (job.index[i] >= 0) job.results[job.count++].id = result_id[i];
    }
    if (job.count == 0) return cli_usage("--grad-input, --grad-weight or --grad-bias is missing");
    int status = cli_layer_parse(args, &job.layer);
    if (status == 0) status = cli_run_options(args, &job.options);
    if (status == 0) status = parse_weight_dtype(args, &job.weight_dtype);
    if (status == 0) status = cli_results_check(args, job.results, job.count);
    if (status == 0) status = cli_parameters_load(args, &job.layer, &job.parameters);
    if (status) return status;
    status = work(args, &job);
    for (int i = 0; i < job.count; i++) io_array_free(&job.results[i].array);
    io_array_free(&job.grad_output);
    io_array_free(&job.input);
    cli_parameters_free(&job.parameters);
    return status;
}

const cli_command cli_backward = {
    .name = "backward",
    .synopsis = "--input=X --weight=W --grad-output=DY\n"
                "--input=X --module=M.safetensors --grad-output=DY",
    .summary = "Compute gradients with respect to input, weight and bias.",
    .takes = CLI_SET_ARGUMENTS | CLI_SET_PARAMETERS | CLI_SET_RUN | CLI_SET(CLI_OPT_INPUT) |
             CLI_SET(CLI_OPT_GRAD_OUTPUT) | CLI_SET(CLI_OPT_GRAD_INPUT) |
             CLI_SET(CLI_OPT_GRAD_WEIGHT) | CLI_SET(CLI_OPT_GRAD_BIAS) |
             CLI_SET(CLI_OPT_GRAD_WEIGHT_DTYPE) | CLI_SET(CLI_OPT_OUTPUT_SIZE),
    .needs = CLI_SET(CLI_OPT_INPUT) | CLI_SET(CLI_OPT_GRAD_OUTPUT),
    .run = backward,
};
