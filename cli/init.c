/* init: a module file with fresh parameters.
 * SPDX-License-Identifier: MIT */
#include "cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    convt3d_fill fill;
} fill_names[] = {{"default", CONVT3D_FILL_DEFAULT},
                  {"trilinear", CONVT3D_FILL_TRILINEAR},
                  {"icnr", CONVT3D_FILL_ICNR}};

static int parse_fill(const char *text, convt3d_fill *fill) {
    *fill = CONVT3D_FILL_DEFAULT;
    if (!text) return 0;
    for (size_t i = 0; i < sizeof(fill_names) / sizeof(fill_names[0]); i++) {
        *fill = fill_names[i].fill;
        if (strcmp(text, fill_names[i].name) == 0) return 0;
    }
    return cli_usage("--fill: '%s'; legal are default, trilinear and icnr", text);
}

/* The arguments that make a trilinear enlargement by the given stride; an
 * option that says something else is reported. */
static int state_trilinear(cli_layer *layer) {
    static const char source[] = "--fill trilinear";
    const convt3d_problem *problem = &layer->problem;
    int64_t kernel_size[3], padding[6], channels = problem->in_channels;
    if (!channels) channels = problem->out_channels ? problem->out_channels : problem->groups;
    for (int a = 0; a < 3; a++) {
        int64_t stride = problem->stride[a];
        if (stride > INT64_MAX / 2)
            return cli_usage("--stride: %s is %" PRId64 "; legal with --fill trilinear are 1 to "
                             "%" PRId64,
                             cli_axis[a], stride, INT64_MAX / 2);
        kernel_size[a] = 2 * stride - stride % 2;
        padding[2 * a] = padding[2 * a + 1] = stride / 2;
    }
    int status = cli_layer_state(layer, CLI_OPT_KERNEL_SIZE, kernel_size, source);
    if (status == 0) status = cli_layer_state(layer, CLI_OPT_PADDING, padding, source);
    if (status == 0) status = cli_layer_state(layer, CLI_OPT_IN_CHANNELS, &channels, source);
    if (status == 0) status = cli_layer_state(layer, CLI_OPT_OUT_CHANNELS, &channels, source);
    if (status == 0) status = cli_layer_state(layer, CLI_OPT_GROUPS, &channels, source);
    layer->problem.bias = 0;
    return status;
}

/* What the fill decides by itself, and whether anything is still unknown. */
static int complete(const cli_args *args, convt3d_fill fill, cli_layer *layer) {
    static const cli_id needed[] = {CLI_OPT_IN_CHANNELS, CLI_OPT_OUT_CHANNELS, CLI_OPT_KERNEL_SIZE};
    int status = 0;
    layer->problem.bias = !args->text[CLI_OPT_NO_BIAS];
    if (fill == CONVT3D_FILL_TRILINEAR) status = state_trilinear(layer);
    if (fill == CONVT3D_FILL_ICNR && !layer->source[CLI_OPT_KERNEL_SIZE])
        status = cli_layer_state(layer, CLI_OPT_KERNEL_SIZE, layer->problem.stride, "--fill icnr");
    for (int i = 0; status == 0 && i < 3; i++)
        if (!layer->source[needed[i]])
            status = cli_usage("%s is missing", cli_option_name(needed[i]));
    return status;
}

/* The module keeps its memory: io only gets to see it. */
static io_array view_of(const convt3d_tensor *tensor) {
    io_array array = {
        .data = tensor->data, .dtype = io_dtype_of(tensor->dtype), .rank = tensor->rank};
    memcpy(array.size, tensor->size, sizeof(tensor->size));
    memcpy(array.stride, tensor->stride, sizeof(tensor->stride));
    return array;
}

static int save(const char *path, const convt3d_module *module) {
    const convt3d_tensor *bias = convt3d_module_bias(module);
    io_array arrays[2] = {view_of(convt3d_module_weight(module))};
    io_named named[2] = {{"weight", &arrays[0]}, {"bias", &arrays[1]}};
    cli_metadata metadata;
    convt3d_error err;
    if (bias) arrays[1] = view_of(bias);
    int pairs = cli_layer_metadata(convt3d_module_layer(module), &metadata);
    cli_phase_enter(CLI_PHASE_SAVE);
    if (io_safetensors_write(path, named, bias ? 2 : 1, metadata.item, pairs, &err) == CONVT3D_OK)
        return 0;
    return cli_fail_status(&err);
}

static int init(const cli_args *args) {
    static const char *const endings[] = {".safetensors", ""};
    const char *path = args->text[CLI_OPT_OUTPUT];
    cli_layer layer;
    convt3d_fill fill;
    uint64_t seed;
    convt3d_module *module;
    convt3d_error err;
    int status = cli_layer_parse(args, &layer);
    if (status == 0) status = parse_fill(args->text[CLI_OPT_FILL], &fill);
    if (status == 0) status = cli_seed(args, 0, &seed);
    if (status == 0) status = complete(args, fill, &layer);
    if (status == 0) status = cli_output_check("--output", path, endings);
    if (status == 0) status = cli_run_check(NULL);
    if (status) return status;
    if (convt3d_module_create(&layer.problem, NULL, &module, &err) != CONVT3D_OK)
        return cli_usage_status(&err);
    if (convt3d_module_fill(module, fill, seed, &err) != CONVT3D_OK) {
        convt3d_module_free(module);
        return cli_usage_status(&err);
    }
    status = save(path, module);
    if (status == 0) {
        char text[1000];
        convt3d_module_describe(module, text, sizeof(text));
        printf("%s", text);
        if (text[0] && text[strlen(text) - 1] != '\n') putchar('\n');
    }
    convt3d_module_free(module);
    return status;
}

const cli_command cli_init = {
    .name = "init",
    .synopsis = "--in-channels=C --out-channels=C --kernel-size=K --output=M.safetensors\n"
                "--fill=trilinear --stride=S --output=M.safetensors",
    .summary = "Make a module file with initial parameters.",
    .takes = CLI_SET_ARGUMENTS | CLI_SET_SIZES | CLI_SET(CLI_OPT_NO_BIAS) | CLI_SET(CLI_OPT_SEED) |
             CLI_SET(CLI_OPT_FILL) | CLI_SET(CLI_OPT_OUTPUT),
    .needs = CLI_SET(CLI_OPT_OUTPUT),
    .run = init,
};
