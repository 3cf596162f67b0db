/* fill: the ways to start a module's parameters: PyTorch's default, linear
 * interpolation, and ICNR.  Everything is checked before anything is written.
 * SPDX-License-Identifier: MIT */
#include "error.h"
#include "number.h"
#include "random.h"

#include <math.h>
#include <string.h>

static int64_t element_count(const convt3d_tensor *tensor) {
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) count *= tensor->size[i];
    return count;
}

/* The bounds of the default's uniform distributions, step by step as
 * torch.nn.init computes them: both are sqrt(1/fan), but the weight's detour
 * by the gain of a leaky rectifier of slope sqrt(5) ends some bits away. */
static double weight_bound(double fan) {
    double slope = sqrt(5.0);
    double gain = sqrt(2.0 / (1.0 + slope * slope));
    double deviation = gain / sqrt(fan);
    return sqrt(3.0) * deviation;
}

static double bias_bound(double fan) {
    return 1.0 / sqrt(fan);
}

/* What PyTorch calls fan_in of a transposed layer: the weights of one input
 * channel. */
static double fan_of(const convt3d_tensor *weight) {
    return (double)(weight->size[1] * weight->size[2] * weight->size[3] * weight->size[4]);
}

static void fill_uniform(convt3d_generator *generator, const convt3d_tensor *tensor, double bound) {
    convt3d_random_uniform(generator, tensor->data, tensor->dtype, element_count(tensor), -bound,
                           bound);
}

static void fill_zero(const convt3d_tensor *tensor) {
    size_t element = convt3d_dtype_size(tensor->dtype);
    memset(tensor->data, 0, (size_t)element_count(tensor) * element);
}

static void fill_default(const convt3d_tensor *weight, const convt3d_tensor *bias,
                         convt3d_generator *generator) {
    double fan = fan_of(weight);
    fill_uniform(generator, weight, weight_bound(fan));
    if (bias) fill_uniform(generator, bias, bias_bound(fan));
}

/* ---- Trilinear ------------------------------------------------------------ */

static convt3d_status check_axis(const char *fill, const char *name, const convt3d_problem *layer,
                                 int a, int64_t value, int64_t wanted, convt3d_error *err) {
    if (value == wanted) return CONVT3D_OK;
    return convt3d_fail(err, CONVT3D_ARG,
                        "%s is %lld on the %s axis, but must be %lld: %s fill with stride %lld "
                        "needs that",
                        name, (long long)value, convt3d_axis_name(a), (long long)wanted, fill,
                        (long long)layer->stride[a]);
}

static convt3d_status check_trilinear_axis(const convt3d_problem *layer, int a,
                                           convt3d_error *err) {
    int64_t s = layer->stride[a];
    /* 2s - s mod 2 overflows only where the kernel is smaller anyway. */
    int64_t kernel = s > INT64_MAX / 2 ? INT64_MAX : 2 * s - s % 2;
    const struct {
        const char *name;
        int64_t value, wanted;
    } rules[] = {{"kernel_size", layer->kernel_size[a], kernel},
                 {"dilation", layer->dilation[a], 1},
                 {"padding (before)", layer->padding_before[a], s / 2},
                 {"padding (after)", layer->padding_after[a], s / 2},
                 {"output_padding", layer->output_padding[a], 0}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        convt3d_status status = check_axis("a trilinear", rules[i].name, layer, a, rules[i].value,
                                           rules[i].wanted, err);
        if (status) return status;
    }
    return CONVT3D_OK;
}

static convt3d_status check_trilinear(const convt3d_problem *layer, convt3d_error *err) {
    if (layer->groups != layer->in_channels || layer->groups != layer->out_channels)
        return convt3d_fail(err, CONVT3D_ARG,
                            "groups is %lld, in_channels %lld and out_channels %lld, but a "
                            "trilinear fill, which treats each channel alone, needs three equal "
                            "numbers",
                            (long long)layer->groups, (long long)layer->in_channels,
                            (long long)layer->out_channels);
    for (int a = 0; a < 3; a++) {
        convt3d_status status = check_trilinear_axis(layer, a, err);
        if (status) return status;
    }
    return CONVT3D_OK;
}

/* Output o = i*s - p + k has its centre, in input samples, at (o + 1/2)/s - 1/2,
 * so it lies (2*(k - p) + 1 - s)/(2s) from input i.  Linear interpolation gives
 * i the weight 1 - |distance|; this is that weight times 2s, an integer. */
static double hat(int64_t k, int64_t p, int64_t s) {
    int64_t distance = 2 * (k - p) + 1 - s;
    return (double)(2 * s - (distance < 0 ? -distance : distance));
}

static void fill_trilinear(const convt3d_problem *layer, const convt3d_tensor *weight) {
    const int64_t *size = weight->size, *s = layer->stride, *p = layer->padding_before;
    double scale = 8.0 * (double)s[0] * (double)s[1] * (double)s[2];
    const size_t element = convt3d_dtype_size(weight->dtype);
    char *at = weight->data;
    for (int64_t c = 0; c < size[0]; c++)
        for (int64_t d = 0; d < size[2]; d++)
            for (int64_t h = 0; h < size[3]; h++)
                for (int64_t w = 0; w < size[4]; w++) {
                    /* Integers below 2^53 but for absurd strides: one rounding. */
                    double value =
                        hat(d, p[0], s[0]) * hat(h, p[1], s[1]) * hat(w, p[2], s[2]) / scale;
                    convt3d_number_put(weight->dtype, at, value);
                    at += element;
                }
}

/* ---- ICNR ----------------------------------------------------------------- */

static convt3d_status check_icnr(const convt3d_problem *layer, convt3d_error *err) {
    for (int a = 0; a < 3; a++) {
        convt3d_status status = check_axis("an ICNR", "kernel_size", layer, a,
                                           layer->kernel_size[a], layer->stride[a], err);
        if (!status)
            status = check_axis("an ICNR", "dilation", layer, a, layer->dilation[a], 1, err);
        if (status) return status;
    }
    return CONVT3D_OK;
}

/* With kernel_size = stride the taps of one channel pair write one block of
 * stride^3 outputs; the same value in all of them starts the layer as nearest
 * neighbour enlargement. */
static void fill_icnr(const convt3d_tensor *weight, const convt3d_tensor *bias,
                      convt3d_generator *generator) {
    double fan = fan_of(weight), bound = weight_bound(fan);
    int64_t taps = weight->size[2] * weight->size[3] * weight->size[4];
    int64_t pairs = weight->size[0] * weight->size[1];
    size_t element = convt3d_dtype_size(weight->dtype);
    char *at = weight->data;
    for (int64_t i = 0; i < pairs; i++) {
        const char *first = at;
        convt3d_random_uniform(generator, at, weight->dtype, 1, -bound, bound);
        for (int64_t t = 1; t < taps; t++) memcpy(at += element, first, element);
        at += element;
    }
    if (bias) fill_uniform(generator, bias, bias_bound(fan));
}

convt3d_status convt3d_module_fill_next(convt3d_module *module, convt3d_fill fill,
                                        convt3d_generator *generator, convt3d_error *err) {
    if (!module || !generator)
        return convt3d_fail(err, CONVT3D_ARG, "%s is NULL", module ? "generator" : "module");
    const convt3d_problem *layer = convt3d_module_layer(module);
    const convt3d_tensor *weight = convt3d_module_weight(module);
    const convt3d_tensor *bias = convt3d_module_bias(module);
    convt3d_status status = CONVT3D_OK;
    switch (fill) {
    case CONVT3D_FILL_DEFAULT:
        fill_default(weight, bias, generator);
        return CONVT3D_OK;
    case CONVT3D_FILL_TRILINEAR:
        status = check_trilinear(layer, err);
        if (status) return status;
        fill_trilinear(layer, weight);
        if (bias) fill_zero(bias);
        return CONVT3D_OK;
    case CONVT3D_FILL_ICNR:
        status = check_icnr(layer, err);
        if (status) return status;
        fill_icnr(weight, bias, generator);
        return CONVT3D_OK;
    }
    return convt3d_fail(err, CONVT3D_ARG,
                        "fill is %d, but must be one of CONVT3D_FILL_DEFAULT, "
                        "CONVT3D_FILL_TRILINEAR and CONVT3D_FILL_ICNR",
                        (int)fill);
}

convt3d_status convt3d_module_fill(convt3d_module *module, convt3d_fill fill, uint64_t seed,
                                   convt3d_error *err) {
    convt3d_generator generator;
    convt3d_generator_seed(&generator, seed);
    return convt3d_module_fill_next(module, fill, &generator, err);
}
