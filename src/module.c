/* module: the layer with its parameters: creation, views, shapes and how it
 * prints itself.  Runs are in module_run.c, initial values in fill.c.
 * SPDX-License-Identifier: MIT */
#include "module.h"
#include "error.h"
#include "plan.h"
#include "problem.h"

#include <stdlib.h>
#include <string.h>

/* ---- Creation ------------------------------------------------------------- */

/* The smallest input size on one axis with which the layer's other arguments
 * can be legal, so that checking a layer of unknown input sizes refuses it only
 * if no input would do.  INT64_MAX where 64 bits don't reach: the check then
 * reports the overflow. */
static int64_t smallest_input(const convt3d_problem *layer, int a) {
    int64_t before = layer->padding_before[a], after = layer->padding_after[a];
    int64_t larger = before > after ? before : after;
    int64_t out = layer->padding_mode == CONVT3D_REFLECT    ? larger + (larger < INT64_MAX)
                  : layer->padding_mode == CONVT3D_CIRCULAR ? larger
                                                            : 1;
    int64_t full, reach;
    /* What is illegal anyway, or overflows anyway, is the check's to report. */
    if (before < 0 || after < 0 || layer->output_padding[a] < 0 || layer->stride[a] < 1 ||
        layer->kernel_size[a] < 1 || layer->dilation[a] < 1 ||
        __builtin_mul_overflow(layer->dilation[a], layer->kernel_size[a] - 1, &reach) ||
        __builtin_add_overflow(reach, layer->output_padding[a], &reach))
        return 1;
    if (__builtin_add_overflow(before, after, &full) || __builtin_add_overflow(full, out, &full))
        return INT64_MAX;
    /* The smallest with full <= (inputs - 1)*stride + reach + 1. */
    return full - 1 > reach ? (full - 1 - reach - 1) / layer->stride[a] + 2 : 1;
}

/* Checks layer and options by planning for them. */
static convt3d_status check_layer(convt3d_module *module, const convt3d_problem *layer,
                                  const convt3d_options *options, convt3d_error *err) {
    convt3d_plan *plan;
    convt3d_problem probe;
    if (layer->struct_size != sizeof probe) return convt3d_problem_output_shape(layer, NULL, err);
    probe = *layer;
    for (int a = 0; a < 3; a++)
        if (probe.input_size[a] == 0) probe.input_size[a] = smallest_input(layer, a);
    convt3d_status status = convt3d_plan_create(&probe, CONVT3D_FORWARD, options, &plan, err);
    if (status) return status;
    module->latest[CONVT3D_FORWARD].plan = plan;
    module->latest[CONVT3D_FORWARD].problem = probe;
    return CONVT3D_OK;
}

static convt3d_status copy_name(const char *name, char **copy, convt3d_error *err) {
    if (!name) return CONVT3D_OK;
    size_t size = strlen(name) + 1;
    *copy = malloc(size);
    if (!*copy) return convt3d_fail_nomem(err, "a copy of the options", size);
    memcpy(*copy, name, size);
    return CONVT3D_OK;
}

static convt3d_status copy_options(convt3d_module *module, const convt3d_options *options,
                                   convt3d_error *err) {
    convt3d_options *taken = &module->options;
    convt3d_status status = convt3d_options_take(options, taken, err);
    if (!status) status = copy_name(taken->isa, &module->isa, err);
    if (!status) status = copy_name(taken->algorithm, &module->algorithm, err);
    module->options.isa = module->isa;
    module->options.algorithm = module->algorithm;
    return status;
}

/* A dense tensor of zeros. */
static convt3d_status make_tensor(convt3d_tensor *tensor, const char *name, convt3d_dtype dtype,
                                  int32_t rank, const int64_t *size, convt3d_error *err) {
    size_t bytes;
    if (!convt3d_bytes(size, rank, convt3d_dtype_size(dtype), &bytes))
        return convt3d_fail(err, CONVT3D_OVERFLOW, "%s takes more bytes than the address space has",
                            name);
    void *data = calloc(1, bytes);
    if (!data) return convt3d_fail_nomem(err, name, bytes);
    *tensor = convt3d_tensor_dense(data, dtype, rank, size);
    return CONVT3D_OK;
}

static convt3d_status make_parameters(convt3d_module *module, convt3d_error *err) {
    const convt3d_problem *p = &module->layer;
    const int64_t size[5] = {p->in_channels, p->out_channels / p->groups, p->kernel_size[0],
                             p->kernel_size[1], p->kernel_size[2]};
    convt3d_status status = make_tensor(&module->weight, "weight", p->dtype, 5, size, err);
    if (!status) status = make_tensor(&module->grad_weight, "grad_weight", p->dtype, 5, size, err);
    if (status || !p->bias) return status;
    status = make_tensor(&module->bias, "bias", p->dtype, 1, &p->out_channels, err);
    if (!status)
        status = make_tensor(&module->grad_bias, "grad_bias", p->dtype, 1, &p->out_channels, err);
    return status;
}

convt3d_status convt3d_module_create(const convt3d_problem *layer, const convt3d_options *options,
                                     convt3d_module **module, convt3d_error *err) {
    if (!module) return convt3d_fail(err, CONVT3D_ARG, "module is NULL");
    *module = NULL;
    if (!layer) return convt3d_fail(err, CONVT3D_ARG, "layer is NULL");
    convt3d_module *made = calloc(1, sizeof *made);
    if (!made) return convt3d_fail_nomem(err, "a module", sizeof *made);
    convt3d_status status = check_layer(made, layer, options, err);
    if (!status) status = copy_options(made, options, err);
    if (!status) {
        made->layer = *layer;
        status = make_parameters(made, err);
    }
    if (status) {
        convt3d_module_free(made);
        return status;
    }
    *module = made;
    return CONVT3D_OK;
}

void convt3d_module_free(convt3d_module *module) {
    if (!module) return;
    for (int i = 0; i < CONVT3D_DIRECTIONS; i++) convt3d_plan_free(module->latest[i].plan);
    free(module->weight.data);
    free(module->bias.data);
    free(module->grad_weight.data);
    free(module->grad_bias.data);
    free(module->isa);
    free(module->algorithm);
    free(module);
}

/* ---- Views ---------------------------------------------------------------- */

const convt3d_problem *convt3d_module_layer(const convt3d_module *module) {
    return module ? &module->layer : NULL;
}

/* Also of a tensor that the module hasn't got. */
static const convt3d_tensor *present(const convt3d_tensor *tensor) {
    return tensor->data ? tensor : NULL;
}

const convt3d_tensor *convt3d_module_weight(const convt3d_module *module) {
    return module ? &module->weight : NULL;
}

const convt3d_tensor *convt3d_module_bias(const convt3d_module *module) {
    return module ? present(&module->bias) : NULL;
}

const convt3d_tensor *convt3d_module_grad_weight(const convt3d_module *module) {
    return module ? &module->grad_weight : NULL;
}

const convt3d_tensor *convt3d_module_grad_bias(const convt3d_module *module) {
    return module ? present(&module->grad_bias) : NULL;
}

static void clear(const convt3d_tensor *tensor) {
    size_t bytes;
    if (convt3d_bytes(tensor->size, tensor->rank, convt3d_dtype_size(tensor->dtype), &bytes))
        memset(tensor->data, 0, bytes);
}

void convt3d_module_zero_grad(convt3d_module *module) {
    if (!module) return;
    clear(&module->grad_weight);
    if (module->grad_bias.data) clear(&module->grad_bias);
}

/* ---- Shapes --------------------------------------------------------------- */

convt3d_status convt3d_module_check_rank(const char *name, int32_t rank, convt3d_error *err) {
    if (rank == 4 || rank == 5) return CONVT3D_OK;
    return convt3d_fail(err, CONVT3D_SHAPE,
                        "%s has %d axes, but must have 5 (N, C, D, H, W) or 4 (C, D, H, W)", name,
                        (int)rank);
}

convt3d_status convt3d_module_problem(const convt3d_module *module, int32_t rank,
                                      const int64_t *size, const int64_t *output_size,
                                      convt3d_problem *problem, convt3d_error *err) {
    *problem = module->layer;
    problem->batch = rank == 5 ? size[0] : 1;
    for (int a = 0; a < 3; a++) problem->input_size[a] = size[rank - 3 + a];
    if (output_size) return convt3d_problem_set_output_size(problem, output_size, err);
    return convt3d_problem_output_shape(problem, NULL, err);
}

convt3d_status convt3d_module_output_shape(const convt3d_module *module, int32_t rank,
                                           const int64_t *size, const int64_t *output_size,
                                           int64_t *shape, convt3d_error *err) {
    convt3d_problem problem;
    int64_t whole[5];
    if (!module || !size || !shape)
        return convt3d_fail(err, CONVT3D_ARG, "%s is NULL",
                            !module ? "module"
                            : !size ? "size"
                                    : "shape");
    convt3d_status status = convt3d_module_check_rank("input", rank, err);
    if (status) return status;
    if (size[rank - 4] != module->layer.in_channels)
        return convt3d_fail(err, CONVT3D_SHAPE,
                            "input has size %lld on its channels axis, but must have %lld",
                            (long long)size[rank - 4], (long long)module->layer.in_channels);
    status = convt3d_module_problem(module, rank, size, output_size, &problem, err);
    if (!status) status = convt3d_problem_output_shape(&problem, whole, err);
    if (status) return status;
    memcpy(shape, whole + (5 - rank), (size_t)rank * sizeof *shape);
    return CONVT3D_OK;
}

/* ---- Description ---------------------------------------------------------- */

static void add_three(convt3d_text *text, const char *name, const int64_t v[3]) {
    convt3d_text_add(text, ", %s=(%lld, %lld, %lld)", name, (long long)v[0], (long long)v[1],
                     (long long)v[2]);
}

static int same_axes(const int64_t a[3], const int64_t b[3]) {
    return a[0] == b[0] && a[1] == b[1] && a[2] == b[2];
}

static int all_are(const int64_t v[3], int64_t value) {
    return v[0] == value && v[1] == value && v[2] == value;
}

/* PyTorch has no padding that differs between the sides; it is shown as a pair
 * (before, after) per axis. */
static void add_padding(convt3d_text *text, const convt3d_problem *p) {
    const int64_t *b = p->padding_before, *a = p->padding_after;
    if (!same_axes(b, a))
        convt3d_text_add(text, ", padding=((%lld, %lld), (%lld, %lld), (%lld, %lld))",
                         (long long)b[0], (long long)a[0], (long long)b[1], (long long)a[1],
                         (long long)b[2], (long long)a[2]);
    else if (!all_are(b, 0))
        add_three(text, "padding", b);
}

static void add_parameter(convt3d_text *text, const char *name, const convt3d_tensor *tensor) {
    convt3d_text_add(text, "  %s: (", name);
    for (int i = 0; i < tensor->rank; i++)
        convt3d_text_add(text, "%s%lld", i ? ", " : "", (long long)tensor->size[i]);
    convt3d_text_add(text, ") %s\n", convt3d_dtype_name(tensor->dtype));
}

size_t convt3d_module_describe(const convt3d_module *module, char *text, size_t size) {
    convt3d_text out = {text, text ? size : 0, 0};
    convt3d_text_add(&out, "%s", "");
    if (!module) return 0;
    const convt3d_problem *p = &module->layer;
    convt3d_text_add(&out, "ConvTranspose3d(%lld, %lld", (long long)p->in_channels,
                     (long long)p->out_channels);
    add_three(&out, "kernel_size", p->kernel_size);
    add_three(&out, "stride", p->stride);
    add_padding(&out, p);
    if (!all_are(p->dilation, 1)) add_three(&out, "dilation", p->dilation);
    if (!all_are(p->output_padding, 0)) add_three(&out, "output_padding", p->output_padding);
    if (p->groups != 1) convt3d_text_add(&out, ", groups=%lld", (long long)p->groups);
    if (!p->bias) convt3d_text_add(&out, ", bias=False");
    if (p->padding_mode != CONVT3D_ZEROS)
        convt3d_text_add(&out, ", padding_mode=%s", convt3d_padding_mode_name(p->padding_mode));
    convt3d_text_add(&out, ")\n");
    add_parameter(&out, "weight", &module->weight);
    if (module->bias.data) add_parameter(&out, "bias", &module->bias);
    return out.length;
}
