/* arrays: the parameters and volumes that a command reads, and the problem that
 * follows from their shapes.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <inttypes.h>
#include <string.h>

convt3d_tensor cli_tensor(const io_array *array) {
    convt3d_tensor tensor = {
        .data = array->data, .dtype = io_dtype_core(array->dtype), .rank = array->rank};
    /* A rank beyond the tensor's stays as it is: the library reports it. */
    for (int i = 0; i < array->rank && i < CONVT3D_MAX_RANK; i++) {
        tensor.size[i] = array->size[i];
        tensor.stride[i] = array->stride[i];
    }
    return tensor;
}

/* What a weight of this type is computed in: its own, or for integers a float
 * type that holds all of its values, as far as there is one. */
static convt3d_dtype compute_dtype(io_dtype dtype) {
    if (io_dtype_core(dtype)) return io_dtype_core(dtype);
    switch (dtype) {
    case IO_U32:
    case IO_I32:
    case IO_U64:
    case IO_I64:
        return CONVT3D_FLOAT64;
    default:
        return CONVT3D_FLOAT32;
    }
}

static int has_tensor(const io_safetensors *file, const char *name) {
    for (int i = 0; i < io_safetensors_count(file); i++)
        if (strcmp(io_safetensors_tensor_name(file, i), name) == 0) return 1;
    return 0;
}

/* The metadata first: what it contradicts is known before large tensors are
 * read. */
static int load_module(const char *path, cli_layer *layer, cli_parameters *parameters) {
    convt3d_error err;
    io_safetensors *file;
    if (io_safetensors_open(path, &file, &err) != CONVT3D_OK) return cli_fail_status(&err);
    int status = cli_layer_take_metadata(layer, file, path);
    if (status == 0 && io_safetensors_read(file, "weight", &parameters->weight, &err) != CONVT3D_OK)
        status = cli_fail_status(&err);
    if (status == 0 && has_tensor(file, "bias") &&
        io_safetensors_read(file, "bias", &parameters->bias, &err) != CONVT3D_OK)
        status = cli_fail_status(&err);
    const char *bias = io_safetensors_metadata(file, "bias");
    if (status == 0 && bias && strcmp(bias, parameters->bias.rank ? "true" : "false") != 0)
        status = cli_fail("%s: metadata bias is '%.20s', but there is %s tensor bias", path, bias,
                          parameters->bias.rank ? "a" : "no");
    io_safetensors_close(file);
    return status;
}

static int load_files(const cli_args *args, cli_parameters *parameters) {
    convt3d_error err;
    const char *bias = args->text[CLI_OPT_BIAS];
    if (io_load(args->text[CLI_OPT_WEIGHT], &parameters->weight, &err) != CONVT3D_OK)
        return cli_fail_status(&err);
    if (!bias || io_load(bias, &parameters->bias, &err) == CONVT3D_OK) return 0;
    return cli_fail_status(&err);
}

/* kernel_size and the channels are the weight's shape. */
static int take_weight_shape(cli_layer *layer, const io_array *weight, const char *source) {
    char text[CLI_SHAPE_TEXT];
    int64_t out_channels;
    if (weight->rank != 5)
        return cli_fail("%s: weight has shape %s; it must have 5 axes: (in_channels, "
                        "out_channels/groups, kD, kH, kW)",
                        source, cli_shape_text(weight->rank, weight->size, text));
    if (__builtin_mul_overflow(weight->size[1], layer->problem.groups, &out_channels))
        return cli_fail("%s: out_channels = %" PRId64 " * groups %" PRId64 " is beyond 64 bits",
                        source, weight->size[1], layer->problem.groups);
    int status = cli_layer_state(layer, CLI_OPT_IN_CHANNELS, &weight->size[0], source);
    if (status == 0) status = cli_layer_state(layer, CLI_OPT_OUT_CHANNELS, &out_channels, source);
    if (status == 0) status = cli_layer_state(layer, CLI_OPT_KERNEL_SIZE, &weight->size[2], source);
    return status;
}

static int convert(io_array *array, convt3d_dtype dtype) {
    convt3d_error err;
    if (io_array_convert(array, dtype, &err) == CONVT3D_OK) return 0;
    return cli_fail_status(&err);
}

/* Beside 16 bits a bias of another type is float32: it is added before the one
 * rounding, and needs none of its own. */
static convt3d_dtype bias_dtype(convt3d_dtype layer, io_dtype bias) {
    int keeps = convt3d_dtype_size(layer) == 2 && io_dtype_core(bias) != layer;
    return keeps ? CONVT3D_FLOAT32 : layer;
}

int cli_parameters_load(const cli_args *args, cli_layer *layer, cli_parameters *parameters) {
    const char *module = args->text[CLI_OPT_MODULE];
    *parameters = (cli_parameters){0};
    if (module && (args->text[CLI_OPT_WEIGHT] || args->text[CLI_OPT_BIAS]))
        return cli_usage("--module and %s exclude each other",
                         args->text[CLI_OPT_WEIGHT] ? "--weight" : "--bias");
    if (!module && !args->text[CLI_OPT_WEIGHT]) return cli_usage("--weight or --module is missing");
    int status = module ? load_module(module, layer, parameters) : load_files(args, parameters);
    if (status == 0)
        status = take_weight_shape(layer, &parameters->weight,
                                   module ? module : args->text[CLI_OPT_WEIGHT]);
    if (!layer->source[CLI_OPT_DTYPE])
        layer->problem.dtype = compute_dtype(parameters->weight.dtype);
    layer->problem.bias = parameters->bias.rank != 0;
    if (status == 0) status = convert(&parameters->weight, layer->problem.dtype);
    if (status == 0 && parameters->bias.rank)
        status =
            convert(&parameters->bias, bias_dtype(layer->problem.dtype, parameters->bias.dtype));
    if (status) cli_parameters_free(parameters);
    return status;
}

void cli_parameters_free(cli_parameters *parameters) {
    io_array_free(&parameters->weight);
    io_array_free(&parameters->bias);
}

int cli_volume_load(const cli_args *args, cli_id id, convt3d_dtype dtype, io_array *array) {
    const char *spec = args->text[id], *name = cli_option_name(id);
    char text[CLI_SHAPE_TEXT];
    convt3d_error err;
    if (io_load(spec, array, &err) != CONVT3D_OK) return cli_fail_status(&err);
    int status = convert(array, dtype);
    if (status == 0 && array->rank != 5 && array->rank != 4)
        status = cli_fail("%s: %s has shape %s; it must have 5 axes (N, C, D, H, W), or 4 "
                          "(C, D, H, W) for one sample",
                          name, spec, cli_shape_text(array->rank, array->size, text));
    if (status) io_array_free(array);
    return status;
}

/* Known before any plan: the message can name the files, and a weight for a
 * Conv layer, the usual mistake, is recognised by its second axis. */
static int check_channels(const cli_args *args, const convt3d_problem *problem,
                          const int64_t *weight, int64_t channels) {
    const char *file = args->text[CLI_OPT_WEIGHT];
    if (weight[0] == channels) return 0;
    return cli_fail("%s: weight has in_channels %" PRId64 ", but %s has %" PRId64 "%s",
                    file ? file : args->text[CLI_OPT_MODULE], weight[0], args->text[CLI_OPT_INPUT],
                    channels,
                    weight[1] * problem->groups == channels
                        ? "; it looks like the weight of a Conv3d layer, (out_channels, "
                          "in_channels/groups, ...): exchange its first two axes"
                        : "");
}

int cli_layer_bind(const cli_args *args, cli_layer *layer, const cli_parameters *parameters,
                   const io_array *input, int64_t shape[5]) {
    convt3d_problem *problem = &layer->problem;
    const int64_t *size = input->size + input->rank - 4;
    convt3d_error err;
    int failed = check_channels(args, problem, parameters->weight.size, size[0]);
    if (failed) return failed;
    problem->batch = input->rank == 5 ? input->size[0] : 1;
    memcpy(problem->input_size, size + 1, 3 * sizeof(*size));
    convt3d_status status = CONVT3D_OK;
    if (layer->has_output_size)
        status = convt3d_problem_set_output_size(problem, layer->output_size, &err);
    if (status == CONVT3D_OK) status = convt3d_problem_output_shape(problem, shape, &err);
    return status == CONVT3D_OK ? 0 : cli_fail_status(&err);
}
