/* fill: the ways to start a module's parameters: PyTorch's default, linear
 * interpolation, and ICNR.  Everything is checked before anything is written.
 * SPDX-License-Identifier: MIT */
#include "error.h"
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

static void fill_uniform(convt3d_random *random, const convt3d_tensor *tensor, double bound) {
    convt3d_random_uniform(random, tensor->data, tensor->dtype, element_count(tensor), -bound,
                           bound);
}

static void fill_zero(const convt3d_tensor *tensor) {
    size_t element = tensor->dtype == CONVT3D_FLOAT32 ? sizeof(float) : sizeof(double);
    memset(tensor->data, 0, (size_t)element_count(tensor) * element);
}

static void fill_default(const convt3d_tensor *weight, const convt3d_tensor *bias, uint64_t seed) {
    convt3d_random random;
    double fan = fan_of(weight);
    convt3d_random_seed(&random, seed);
    fill_uniform(&random, weight, weight_bound(fan));
    if (bias) fill_uniform(&random, bias, bias_bound(fan));
}

/* ---- Trilinear ------------------------------------------------------------ */

static convt3d_status check_trilinear_axis(const convt3d_problem *layer, int a,
                                           convt3d_error *err) {
    int64_t s = layer->stride[a];
    const struct {
        const char *name;
        int64_t value, wanted;
    } rules[] = {{"dilation", layer->dilation[a], 1},
                 {"output_padding", layer->output_padding[a], 0},
                 {"padding before", layer->padding_before[a], s / 2},
                 {"padding after", layer->padding_after[a], s / 2}};
    /* Not 2s - s mod 2 = kernel_size, since 2s may overflow. */
    int64_t k = layer->kernel_size[a];
    if (k - s != s - s % 2)
        return convt3d_fail(err, CONVT3D_ARG,
                            "kernel_size %lld (%s): a trilinear fill with stride %lld needs "
                            "kernel_size = 2*stride - stride mod 2",
                            (long long)k, convt3d_axis_name(a), (long long)s);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (rules[i].value != rules[i].wanted)
            return convt3d_fail(err, CONVT3D_ARG,
                                "%s %lld (%s): a trilinear fill with stride %lld needs %lld",
                                rules[i].name, (long long)rules[i].value, convt3d_axis_name(a),
                                (long long)s, (long long)rules[i].wanted);
    return CONVT3D_OK;
}

static convt3d_status check_trilinear(const convt3d_problem *layer, convt3d_error *err) {
    if (layer->groups != layer->in_channels || layer->groups != layer->out_channels)
        return convt3d_fail(err, CONVT3D_ARG,
                            "groups %lld, in_channels %lld, out_channels %lld: a trilinear fill "
                            "treats each channel alone and needs all three equal",
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
    float *single = weight->data;
    double *dual = weight->data;
    int64_t at = 0;
    for (int64_t c = 0; c < size[0]; c++)
        for (int64_t d = 0; d < size[2]; d++)
            for (int64_t h = 0; h < size[3]; h++)
                for (int64_t w = 0; w < size[4]; w++) {
                    /* Integers below 2^53 but for absurd strides: one rounding. */
                    double value =
                        hat(d, p[0], s[0]) * hat(h, p[1], s[1]) * hat(w, p[2], s[2]) / scale;
                    if (weight->dtype == CONVT3D_FLOAT32)
                        single[at++] = (float)value;
                    else
                        dual[at++] = value;
                }
}

/* ---- ICNR ----------------------------------------------------------------- */

static convt3d_status check_icnr(const convt3d_problem *layer, convt3d_error *err) {
    for (int a = 0; a < 3; a++) {
        if (layer->kernel_size[a] != layer->stride[a])
            return convt3d_fail(err, CONVT3D_ARG,
                                "kernel_size %lld (%s): an ICNR fill needs kernel_size = stride, "
                                "here %lld",
                                (long long)layer->kernel_size[a], convt3d_axis_name(a),
                                (long long)layer->stride[a]);
        if (layer->dilation[a] != 1)
            return convt3d_fail(err, CONVT3D_ARG, "dilation %lld (%s): an ICNR fill needs 1",
                                (long long)layer->dilation[a], convt3d_axis_name(a));
    }
    return CONVT3D_OK;
}

/* With kernel_size = stride the taps of one channel pair write one block of
 * stride^3 outputs; the same value in all of them starts the layer as nearest
 * neighbour enlargement. */
static void fill_icnr(const convt3d_tensor *weight, const convt3d_tensor *bias, uint64_t seed) {
    convt3d_random random;
    double fan = fan_of(weight), bound = weight_bound(fan);
    int64_t taps = weight->size[2] * weight->size[3] * weight->size[4];
    int64_t pairs = weight->size[0] * weight->size[1];
    size_t element = weight->dtype == CONVT3D_FLOAT32 ? sizeof(float) : sizeof(double);
    char *at = weight->data;
    convt3d_random_seed(&random, seed);
    for (int64_t i = 0; i < pairs; i++) {
        const char *first = at;
        convt3d_random_uniform(&random, at, weight->dtype, 1, -bound, bound);
        for (int64_t t = 1; t < taps; t++) memcpy(at += element, first, element);
        at += element;
    }
    if (bias) fill_uniform(&random, bias, bias_bound(fan));
}

convt3d_status convt3d_module_fill(convt3d_module *module, convt3d_fill fill, uint64_t seed,
                                   convt3d_error *err) {
    if (!module) return convt3d_fail(err, CONVT3D_ARG, "module is NULL");
    const convt3d_problem *layer = convt3d_module_layer(module);
    const convt3d_tensor *weight = convt3d_module_weight(module);
    const convt3d_tensor *bias = convt3d_module_bias(module);
    convt3d_status status = CONVT3D_OK;
    switch (fill) {
    case CONVT3D_FILL_DEFAULT:
        fill_default(weight, bias, seed);
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
        fill_icnr(weight, bias, seed);
        return CONVT3D_OK;
    }
    return convt3d_fail(err, CONVT3D_ARG,
                        "fill %d is unknown; legal are 0 (default), 1 (trilinear), 2 (ICNR)",
                        (int)fill);
}
